"""Who did what: entries chained by their hashes, and how to prove that none was touched."""
