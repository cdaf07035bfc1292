"""Prices against the price table's own expected values for recorded usages.

Each record holds a vendor's usage body, the normalised counts that the table's project reads
from it, and what the project says they cost at each provider whose reader understands the
body. Those amounts are exact decimals in USD; ours must be the same amounts in nanos, rounded
half to even, with no tolerance.
"""

import gzip
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from functools import cache
from typing import NamedTuple

from tests.support.corpus import corpus_dir, read_jsonl
from trunkline import v1
from trunkline_server.catalogue.prices import PriceBook

# The day of the table and of the amounts.
AT = datetime(2026, 8, 21, 12, tzinfo=UTC).timestamp()

COUNTED: Mapping[str, str] = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cache_read_tokens": "cached_input_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "cache_write_1h_tokens": "cache_write_1h_tokens",
    "output_reasoning_tokens": "reasoning_tokens",
    "input_audio_tokens": "input_audio_tokens",
    "output_audio_tokens": "output_audio_tokens",
    "cache_audio_read_tokens": "cached_input_audio_tokens",
}
# Parts that a Usage does not tell apart from the rest of their total.
MERGED = {
    "input_text_tokens",
    "output_text_tokens",
    "input_image_tokens",
    "output_image_tokens",
    "input_video_tokens",
    "cache_text_read_tokens",
    "cache_image_read_tokens",
    "cache_write_5m_tokens",
    "input_tool_tokens",
    "input_text_tool_tokens",
}


class Case(NamedTuple):
    provider: str
    model: str
    usage: Mapping[str, int]
    input: Decimal
    output: Decimal


def cases() -> Iterator[Case]:
    path = corpus_dir() / "prices" / "genai_usages_expected.jsonl.gz"
    for record in read_jsonl(path):
        for reading in record["extracted"]:
            for row in reading["extractors"]:
                if "input_price" in row:
                    yield Case(
                        row["provider_id"],
                        record["model"],
                        reading["usage"],
                        Decimal(row["input_price"]),
                        Decimal(row["output_price"]),
                    )


@cache
def published() -> PriceBook:
    path = corpus_dir() / "prices" / "genai-prices_data.json.gz"
    with gzip.open(path) as table:
        return PriceBook.from_rows(json.load(table, parse_float=Decimal))


def nanos(usd: Decimal) -> int:
    return int((usd * 10**9).quantize(Decimal(1), rounding=ROUND_HALF_EVEN))


def contract_usage(counts: Mapping[str, int]) -> v1.Usage:
    usage = v1.Usage(source=v1.USAGE_SOURCE_PROVIDER)
    for name, count in counts.items():
        if name in COUNTED:
            setattr(usage, COUNTED[name], count)
        else:
            assert name in MERGED or name == "web_searches", name
    return usage


# The expected amounts come from a newer state of the table than its JSON of that day. In that
# JSON gemini-2.5-flash-image has one output rate for text and images, and zai is no provider.
OF_A_NEWER_TABLE = [("google", "gemini-2.5-flash-image"), ("zai", "glm-5.2")]


def test_every_expected_price() -> None:
    count = 0
    wrong = []
    for case in cases():
        count += 1
        price = published().find(case.provider, case.model)
        cost = v1.Cost() if price is None else price.cost(contract_usage(case.usage), AT)
        # The table's total would add charges for the vendor's tools, which no Usage counts.
        expected = [nanos(case.input), nanos(case.output), nanos(case.input + case.output)]
        if price is None or [cost.input, cost.output, cost.total] != expected:
            wrong.append((case.provider, case.model))
    assert count >= 800
    assert sorted(wrong) == OF_A_NEWER_TABLE
