"""Usage events: recorded, journaled before the answer leaves, shipped, and reported on."""
