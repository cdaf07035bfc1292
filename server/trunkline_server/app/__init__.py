"""The composition root: builds, wires, runs and closes everything."""
