"""One strategy, one file."""
