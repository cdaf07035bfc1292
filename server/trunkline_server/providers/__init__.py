"""Pure codecs between messages and vendor bytes."""
