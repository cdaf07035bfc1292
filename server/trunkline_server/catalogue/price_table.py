"""The genai-prices table, read provider by provider.

The project publishes its table as JSON and ships it in its package as a Python module,
`data.py`, whose rows are calls such as `ModelInfo(id='gpt-5', ...)`. Importing that package
costs about 0.8 s and 95 MB, for pydantic, an HTTP client and 47 providers of which a router
uses a few. So the module is read as text, and only the rows of the providers that are asked
for are evaluated, every constructor being `dict`: the result has the shape of the JSON.
"""

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import cache
from importlib import util
from pathlib import Path
from typing import Any, Protocol

_CONSTRUCTORS = (
    "ArrayMatch ClauseAnd ClauseContains ClauseEndsWith ClauseEquals ClauseOr ClauseRegex "
    "ClauseStartsWith ConditionalPrice ModelInfo ModelPrice PriceVariant Provider "
    "StartDateConstraint Tier TieredPrices TimeOfDateConstraint UsageExtractor "
    "UsageExtractorMapping"
)
_NAMES: Mapping[str, object] = {
    "__builtins__": {},
    "Decimal": Decimal,
    "datetime": dt,
    **dict.fromkeys(_CONSTRUCTORS.split(), dict),
}
_ROW_START = re.compile(r"^    Provider\(\n        id='([^']+)',$", re.MULTILINE)
_ROW_END = "\n    ),\n"


class PriceTableError(Exception):
    """The installed genai-prices package is missing or in a form that is not understood."""


class PriceTable(Protocol):
    """A price table."""

    @property
    def provider_ids(self) -> tuple[str, ...]:
        """The ids of its providers, in the table's order."""
        ...

    def provider(self, provider_id: str) -> Mapping[str, Any]:
        """One provider's row, as in the published JSON; numbers may be Decimal, dates may be
        objects. Raises KeyError for an unknown id."""
        ...


class InstalledTable:
    """The table in the installed genai-prices package. Opens no connection.

    Raises PriceTableError when it cannot be read.
    """

    def __init__(self) -> None:
        package = util.find_spec("genai_prices")
        if package is None or not package.submodule_search_locations:
            raise PriceTableError("genai-prices is not installed")
        path = Path(package.submodule_search_locations[0]) / "data.py"
        try:
            self._text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise PriceTableError(f"genai-prices has no table: {error}") from error
        self._spans = {row[1]: row.start() for row in _ROW_START.finditer(self._text)}
        if not self._spans:
            raise PriceTableError("genai-prices has its table in a form that is not understood")

    @property
    def provider_ids(self) -> tuple[str, ...]:
        return tuple(self._spans)

    def provider(self, provider_id: str) -> Mapping[str, Any]:
        start = self._spans[provider_id]
        end = self._text.find(_ROW_END, start)
        source = self._text[start:end].strip() + ")"
        try:
            # Code of an installed dependency, which an import would run just the same.
            row = eval(source, dict(_NAMES))  # noqa: S307
        except (SyntaxError, NameError, TypeError) as error:
            raise PriceTableError(
                f"genai-prices has {provider_id} in a form that is not understood: {error}"
            ) from error
        if not isinstance(row, dict):
            raise PriceTableError(f"genai-prices has no row for {provider_id}")
        return row


@cache
def installed_table() -> InstalledTable:
    """The installed table, read once. Raises PriceTableError."""
    return InstalledTable()


class LoadedTable:
    """A table given as rows, as the published JSON holds them."""

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._rows = {row["id"]: row for row in rows}

    @property
    def provider_ids(self) -> tuple[str, ...]:
        return tuple(self._rows)

    def provider(self, provider_id: str) -> Mapping[str, Any]:
        return self._rows[provider_id]
