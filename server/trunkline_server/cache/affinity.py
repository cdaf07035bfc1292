"""Which deployment has the beginning of a conversation in its vendor's prompt cache.

Vendors keep the prefixes of prompts for some minutes and charge less for tokens read from
there: for OpenAI from 1,024 tokens on (https://platform.openai.com/docs/guides/prompt-caching),
for Anthropic where the request marks it
(https://docs.claude.com/en/docs/build-with-claude/prompt-caching). Each account and region has
its own, so it pays to send a conversation where its beginning went before.

A prompt is cut into blocks, and each block is named by a hash of itself and all before it. What
is remembered is which deployments saw a block lately: nothing of the text.
"""

from collections import OrderedDict
from collections.abc import Sequence

from trunkline import v1

# About 512 tokens of English. A prompt below two blocks is below what vendors keep.
BLOCK_BYTES = 2_048
BLOCK_TOKENS = 512
_LEAST_BLOCKS = 2
# Prompts are looked at so far: about 250,000 tokens.
_MOST_BLOCKS = 512


def prefix_blocks(request: v1.GenerateRequest, scope: str) -> Sequence[int]:
    """The names of the whole blocks of a prompt, from its beginning.

    The same for conversations that begin alike, with the same tools, in one scope: what one
    tenant sent steers no other's calls. They hold within this process only. The serialised
    request stands for the prompt: its messages come right after the model, in order, and what
    follows them is in the last block or so.
    """
    size = request.ByteSize()
    if size < _LEAST_BLOCKS * BLOCK_BYTES:
        return ()
    # Vendors put tools before all messages.
    tools = b"".join([tool.SerializeToString() for tool in request.tools])
    raw = request.SerializeToString(deterministic=True)
    name = hash((scope, tools))
    blocks = []
    for start in range(0, min(size // BLOCK_BYTES, _MOST_BLOCKS) * BLOCK_BYTES, BLOCK_BYTES):
        name = hash((name, raw[start : start + BLOCK_BYTES]))
        blocks.append(name)
    return blocks


class PrefixAffinity:
    """Which deployments saw which blocks in the last `ttl` seconds.

    Holds at most `capacity` blocks, about 400 bytes each, and lets go of those that were seen
    longest ago. Times are monotonic seconds.
    """

    def __init__(self, capacity: int = 100_000, ttl: float = 300.0) -> None:
        self._capacity = capacity
        self._ttl = ttl
        self._seen: OrderedDict[int, dict[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def saw(self, blocks: Sequence[int], deployment: str, now: float) -> None:
        """A deployment has answered a prompt of these blocks."""
        seen = self._seen
        # The first block last: a block is let go only after all that follow it.
        for block in reversed(blocks):
            places = seen.get(block)
            if places is None:
                seen[block] = {deployment: now}
            else:
                places[deployment] = now
                seen.move_to_end(block)
        while len(seen) > self._capacity:
            seen.popitem(last=False)

    def affinity(self, blocks: Sequence[int], now: float) -> dict[str, int]:
        """How many blocks from the beginning each deployment saw lately; those with any."""
        first = self._seen.get(blocks[0]) if blocks else None
        if first is None:
            return {}
        since = now - self._ttl
        return {
            deployment: self._depth(blocks, deployment, since)
            for deployment, at in first.items()
            if at >= since
        }

    def _depth(self, blocks: Sequence[int], deployment: str, since: float) -> int:
        """How many blocks it saw since then, the first being one of them.

        It saw each block with all before it, and blocks are let go from the end: so what it
        knows of a prompt is its beginning, and the border can be searched for by halves.
        """
        known, unknown = 1, len(blocks) + 1
        while unknown - known > 1:
            middle = (known + unknown) // 2
            places = self._seen.get(blocks[middle - 1])
            at = None if places is None else places.get(deployment)
            if at is not None and at >= since:
                known = middle
            else:
                unknown = middle
        return known
