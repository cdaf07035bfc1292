"""The failures that a simulated vendor reports, before a dialect puts them in its own shape."""

from dataclasses import dataclass

# The kinds of failure. Each dialect has its own HTTP status and words for every one of them.
KINDS = (
    "invalid",
    "authentication",
    "permission",
    "not_found",
    "model",
    "rate_limit",
    "quota",
    "context",
    "filter",
    "overloaded",
    "timeout",
    "too_large",
    "server",
)

_KIND_OF_STATUS = {
    401: "authentication",
    403: "permission",
    404: "not_found",
    408: "timeout",
    413: "too_large",
    429: "rate_limit",
    503: "overloaded",
    504: "timeout",
    529: "overloaded",
}


def kind_of_status(status: int) -> str:
    """The kind that a scripted HTTP status stands for."""
    known = _KIND_OF_STATUS.get(status)
    if known is not None:
        return known
    return "server" if status >= 500 else "invalid"


@dataclass(eq=False, slots=True)
class VendorError(Exception):
    """A call that the simulated vendor refuses.

    `message` empty means the dialect's usual words for the kind. `param` names the wrong
    field the way the vendor does. `code` is the vendor's machine-readable word, where the
    dialect has one and it is not the kind's own. `status` overrides the kind's HTTP status.
    `retry_after` is in seconds. `sizes` of a context failure are the prompt's tokens and the
    most that are allowed.
    """

    kind: str
    message: str = ""
    param: str | None = None
    code: str | None = None
    status: int = 0
    retry_after: float | None = None
    sizes: tuple[int, int] = (128_001, 128_000)
