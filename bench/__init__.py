"""The bench: every performance figure of the router, with the floors it is measured against."""
