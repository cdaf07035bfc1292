"""Pure choice over an immutable snapshot."""
