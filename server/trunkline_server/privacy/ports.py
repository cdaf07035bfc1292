"""What privacy asks of others: one HTTP exchange, and someone who watches."""

from typing import Protocol


class Post(Protocol):
    """Posts JSON."""

    async def __call__(self, url: str, body: bytes, limit: float) -> tuple[int, bytes]:
        """The status and the body of the answer, within `limit` seconds. Raises TrunklineError
        or TimeoutError."""
        ...


class PrivacyWatch(Protocol):
    """Watches the analyzer out of process. Must not block or raise."""

    def analyzer_outage(self, entered: bool, mode: str) -> None:
        """The analyzer went away, so that texts are treated by `mode`; or is back."""
        ...
