"""The control plane, trunkline.admin.v1, on a port of its own."""
