"""Ways to cut a byte stream: whole, byte by byte, and at seeded random places."""

import random
from collections.abc import Iterator

SEEDS = (1, 2, 3)


def whole(data: bytes) -> list[bytes]:
    return [data]


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def at_random(data: bytes, seed: int) -> list[bytes]:
    """Pieces of 1 to about 200 bytes, the same for the same seed."""
    rng = random.Random(seed)
    pieces = []
    start = 0
    while start < len(data):
        size = rng.choice((1, 2, 3, 7, 20, 64, 200))
        pieces.append(data[start : start + size])
        start += size
    return pieces


def every_way(data: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Each way's name and its pieces."""
    yield "whole", whole(data)
    yield "bytes", byte_by_byte(data)
    for seed in SEEDS:
        yield f"seed-{seed}", at_random(data, seed)
