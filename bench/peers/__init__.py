"""Other gateways, in the same run, configured as they advise for production."""
