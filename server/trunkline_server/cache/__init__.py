"""The answer cache: exact answers kept for a tenant, and identical calls made once."""
