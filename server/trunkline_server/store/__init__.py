"""Databases and Redis: implementations of the ports that other rooms declare."""
