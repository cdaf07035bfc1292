"""Connections to providers and the framing of their streams."""
