"""Wire to call and back, one file per service; no policy."""
