"""What the cache counts; telemetry reads it when it is asked for figures."""

from dataclasses import dataclass


@dataclass(slots=True)
class Stats:
    """Sums since the start. Calls are counted once, embeddings by input."""

    memory_hits: int = 0
    shared_hits: int = 0  # From the second level.
    joined: int = 0  # Answered by an identical call that was under way.
    misses: int = 0
    saved_nanos: int = 0  # What the answers of hits and joined calls cost when they were made.
    stored: int = 0
    too_large: int = 0
    shared_errors: int = 0  # The second level failed or was away.
    shared_corrupt: int = 0  # It held what this cache did not write, or not for this key.
    shared_dropped: int = 0  # Answers not written to it because too much was being written.
