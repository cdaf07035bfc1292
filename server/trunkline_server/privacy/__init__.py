"""Personal data: found, redacted from stored text, masked before vendors see it, and labelled."""
