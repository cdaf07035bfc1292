"""A response's header fields, read when somebody asks: on most calls nobody does."""

from collections.abc import Iterator, Mapping

# Names and values, as they came and in their order.
Fields = list[tuple[bytes, bytes]]


class Headers(Mapping[str, str]):
    """Values by lower-case name; of repeated fields the last counts."""

    __slots__ = ("_fields", "_values")

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self._values: dict[str, str] | None = None

    def __getitem__(self, name: str) -> str:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def tell_limits(self) -> bool:
        """Whether any name says that it is of a rate limit; cheaper than reading them all."""
        for name, _ in self._fields:  # noqa: SIM110 - A generator would cost as much again.
            if b"atelimit" in name or b"ateLimit" in name:
                return True
        return False

    def _read(self) -> dict[str, str]:
        if self._values is None:
            self._values = {
                name.decode("latin-1").lower(): value.rstrip().decode("latin-1")
                for name, value in self._fields
            }
        return self._values
