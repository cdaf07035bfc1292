"""The named scenarios."""
