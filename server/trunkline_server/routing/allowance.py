"""What a deployment's vendor said that it still admits, and what has been sent since."""

from collections.abc import Mapping

# How much the newest call counts in the usual use of tokens.
_NEWEST = 0.2
_KINDS = ("requests", "tokens", "input_tokens", "output_tokens")


class Allowance:
    """One deployment's; moments are monotonic seconds.

    What is left is what the last answer told, less what other calls under way may take: their
    vendor may have counted them before that answer, or not. So it is told too low while many
    are under way, and right again with the answer of the last of them.
    """

    __slots__ = ("_left", "_until", "_usual")

    def __init__(self) -> None:
        self._left: dict[str, float] = {}
        self._until: dict[str, float] = {}
        # What a usual call takes of each kind.
        self._usual = dict.fromkeys(_KINDS, 1.0)

    def learn(self, told: Mapping[str, tuple[float, float]], others: int, now: float) -> None:
        """Takes note of an answer: what is left by kind and the seconds until it is whole
        again, while so many `others` are under way."""
        for kind, (amount, seconds) in told.items():
            self._left[kind] = amount - others * self._usual[kind]
            self._until[kind] = now + seconds

    def sent(self) -> None:
        """A call begins."""
        for kind in self._left:
            self._left[kind] -= self._usual[kind]

    def took(self, input_tokens: int, output_tokens: int) -> None:
        """A call has taken so many tokens."""
        usual = self._usual
        for kind, amount in (
            ("tokens", input_tokens + output_tokens),
            ("input_tokens", input_tokens),
            ("output_tokens", output_tokens),
        ):
            first = usual[kind] == 1.0
            usual[kind] = max(
                1.0, amount if first else usual[kind] + _NEWEST * (amount - usual[kind])
            )

    def used_up(self, now: float) -> tuple[str, float]:
        """The kind of which less is left than a usual call takes, and the moment when there
        will be more: of several the last. ("", 0.0) if there is none."""
        worst = ("", 0.0)
        for kind, left in self._left.items():
            until = self._until[kind]
            if left < self._usual[kind] and until > now and until > worst[1]:
                worst = (kind, until)
        return worst

    def left(self, now: float) -> dict[str, float]:
        """What is left by kind, never below zero, of what has not been renewed since."""
        return {
            kind: max(left, 0.0) for kind, left in self._left.items() if self._until[kind] > now
        }
