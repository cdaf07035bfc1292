"""What privacy asks of others: one HTTP exchange, and someone who watches."""

from typing import Literal, Protocol

Direction = Literal["request", "answer"]


class Post(Protocol):
    """Posts JSON."""

    async def __call__(self, url: str, body: bytes, limit: float) -> tuple[int, bytes]:
        """The status and the body of the answer, within `limit` seconds. Raises TrunklineError
        or TimeoutError."""
        ...


class PrivacyWatch(Protocol):
    """Watches what is done to calls. Must not block or raise."""

    def masked(self, label: str) -> None:
        """A call of this label went on with placeholders in place of personal data."""
        ...

    def raised(self, label: str) -> None:
        """A call became one of this label by what was found in it."""
        ...

    def payload(self, call_id: str, label: str, what: Direction, text: str, cut: bool) -> None:
        """What a call asked or was answered, redacted; `cut` if there was more of it."""
        ...


class AnalyzerWatch(Protocol):
    """Watches the analyzer out of process. Must not block or raise."""

    def analyzer_outage(self, entered: bool, mode: str) -> None:
        """The analyzer went away, so that texts are treated by `mode`; or is back."""
        ...
