"""HTTP servers that speak the providers' dialects."""
