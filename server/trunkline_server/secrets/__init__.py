"""Credentials: kept encrypted, fetched from secret managers, rotated without a failed call."""
