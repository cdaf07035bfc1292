"""The control plane's contract."""
