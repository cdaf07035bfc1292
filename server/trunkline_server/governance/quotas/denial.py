"""Why a call is refused, in the words that its caller reads."""

from dataclasses import dataclass
from math import inf

from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.quotas.gates import Subject
from trunkline_server.governance.quotas.ports import NEVER
from trunkline_server.governance.quotas.rules import Budget, Demand, Limit, Measure

_NOUNS = {
    Measure.REQUESTS: "requests",
    Measure.TOKENS: "tokens",
    Measure.CONCURRENCY: "calls at the same time",
}


@dataclass(slots=True)
class Denial:
    """The rule that stands most in a call's way; `wait` in seconds, or NEVER or UNKNOWN."""

    rule: Limit | Budget
    subject: Subject
    wait: float

    def weight(self) -> float:
        """Orders denials by how long they will stand; what is not known counts as an hour."""
        if self.wait >= 0.0:
            return self.wait
        return inf if self.wait == NEVER else 3600.0

    def error(self, demand: Demand) -> TrunklineError:
        """RATE_LIMIT or QUOTA_EXCEEDED, with the wait where one is known."""
        rule, name = self.rule, self.subject[1]
        retry_after = self.wait if self.wait >= 0.0 else None
        subject = f"{rule.scope} {name!r}"
        metadata = {"scope": rule.scope, "subject": name, rule.scope: name}
        if isinstance(rule, Budget):
            left = "the call's worst case is more than all of it" if self.wait == NEVER else "spent"
            return TrunklineError(
                v1.ERROR_REASON_QUOTA_EXCEEDED,
                f"the {rule.period.value} budget {rule.name!r} of {subject}: {left}",
                metadata={"budget": rule.name, "period": rule.period.value, **metadata},
                retry_after=retry_after,
            )
        amount = f"{rule.amount} {_NOUNS[rule.measure]}"
        if rule.measure is not Measure.CONCURRENCY:
            amount += f" per {rule.per}"
        message = f"the limit {rule.name!r} of {amount} for {subject} is reached"
        if self.wait == NEVER:
            message = (
                f"the call may need {demand.tokens} tokens, and the limit {rule.name!r} for "
                f"{subject} never admits more than {rule.capacity} at once"
            )
        return TrunklineError(
            v1.ERROR_REASON_RATE_LIMIT,
            message,
            metadata={"limit": rule.name, "measure": rule.measure.value, **metadata},
            retry_after=retry_after,
        )


def unavailable(rule: Limit | Budget, subject: Subject) -> TrunklineError:
    """The shared counters are away, and the rule's mode is to deny."""
    kind = "budget" if isinstance(rule, Budget) else "limit"
    return TrunklineError(
        v1.ERROR_REASON_SERVICE_UNAVAILABLE,
        f"the {kind} {rule.name!r} cannot be checked for now",
        metadata={kind: rule.name, "scope": rule.scope, "subject": subject[1]},
    )
