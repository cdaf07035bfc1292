"""Bare servers: the least that a call can cost with the same parts."""
