"""What the scenarios are made with: processes, load generators, statistics."""
