"""Who calls: keys, tokens and certificates."""
