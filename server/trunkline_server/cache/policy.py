"""Which calls may use the answer cache, and which answers may be kept."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from trunkline import v1
from trunkline_server.errors import TrunklineError

# Whose calls use the cache: nobody's; those that ask for it by their CachePolicy; all that may.
Use = Literal["off", "asked", "on"]

# An unset temperature leaves it to the vendor, and vendors' own is about 1: such answers vary.
VENDOR_TEMPERATURE = 1.0


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration says of a route's answers.

    `ttl` and `max_ttl` are seconds: what holds when the call names none, and the most it may
    name. Above `max_temperature` a call that does not ask for the cache goes without. Zero is
    the default because whoever samples wants answers that differ: votes over several samples
    and second tries would get one answer again and again, and nobody would see why.
    """

    use: Use = "on"
    ttl: float = 3_600.0
    max_ttl: float = 86_400.0
    max_temperature: float = 0.0


@dataclass(frozen=True, slots=True)
class Source:
    """What may answer calls of one route, and by which rules; made once for each table.

    `fingerprint` changes with the set of models that may answer, see `key.fingerprint`.
    `sends_user_id` is whether any of them is told the context's user_id. `one_model` is
    whether all of them are the same model of a vendor, so that vectors from different calls
    may stand in one answer.
    """

    fingerprint: bytes
    rules: Rules = Rules()
    sends_user_id: bool = False
    one_model: bool = False


class Intent(NamedTuple):
    """How one call uses the cache. `ttl` in seconds; not `read` and not `only`: refresh."""

    read: bool
    write: bool
    only: bool
    ttl: float


def cache_miss() -> TrunklineError:
    """The failure of a call that allowed only a cached answer."""
    return TrunklineError(v1.ERROR_REASON_CACHE_MISS, "there is no cached answer to this request")


def generate_intent(request: v1.GenerateRequest, rules: Rules) -> Intent | None:
    """How a generation uses the cache; None: not at all. Raises CACHE_MISS."""
    config = request.config
    temperature = config.temperature if config.HasField("temperature") else VENDOR_TEMPERATURE
    policy = request.cache if request.HasField("cache") else None
    return _intent(policy, rules, varies=temperature > rules.max_temperature)


def embed_intent(request: v1.EmbedRequest, rules: Rules) -> Intent | None:
    """How an embedding uses the cache; None: not at all. Raises CACHE_MISS."""
    policy = request.cache if request.HasField("cache") else None
    return _intent(policy, rules, varies=False)


def _intent(policy: v1.CachePolicy | None, rules: Rules, *, varies: bool) -> Intent | None:
    if policy is None:
        if rules.use != "on" or varies:
            return None
        return Intent(read=True, write=True, only=False, ttl=rules.ttl)
    mode = policy.mode
    only = mode == v1.CACHE_MODE_ONLY_IF_CACHED
    if mode == v1.CACHE_MODE_BYPASS:
        return None
    if rules.use == "off":
        if only:
            raise cache_miss()
        return None
    names_ttl = policy.HasField("ttl")
    # A lifetime, a refresh or a demand for a cached answer is a request for the cache.
    asked = names_ttl or only or mode == v1.CACHE_MODE_REFRESH
    if not asked and (varies or rules.use == "asked"):
        return None
    ttl = rules.ttl
    if names_ttl:
        ttl = min(policy.ttl.seconds + policy.ttl.nanos / 1e9, rules.max_ttl)
    refresh = mode == v1.CACHE_MODE_REFRESH
    return Intent(read=not refresh, write=ttl > 0 and not only, only=only, ttl=ttl)


_WHOLE = frozenset({v1.FINISH_REASON_STOP, v1.FINISH_REASON_TOOL_CALLS})


def may_keep(request: v1.GenerateRequest, finish_reason: v1.FinishReason.ValueType) -> bool:
    """Whether an answer that ended so is one to give again.

    An answer cut at the length that the request itself names is what the same request gets
    again; one cut at another limit is an accident. What a filter withheld, the model declined
    or no vendor called complete is never kept.
    """
    if finish_reason == v1.FINISH_REASON_LENGTH:
        return request.config.HasField("max_output_tokens")
    return finish_reason in _WHOLE
