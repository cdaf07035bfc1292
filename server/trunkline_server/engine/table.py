"""The routing table in force: the snapshot, how to reach its providers, and their health."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from trunkline import v1
from trunkline_server.engine.ports import Caller, Credential, Headers, Sign
from trunkline_server.engine.sites import Sites
from trunkline_server.providers.codec import Codec, CodecTarget
from trunkline_server.providers.exchange import ExchangeCodec
from trunkline_server.routing.health import HealthTable
from trunkline_server.routing.snapshot import Deployment, Snapshot
from trunkline_server.upstream.framing import Framing, framing_of
from trunkline_server.upstream.sse import SseParser

# Passed-through model ids and callers are unbounded in number; what is remembered of them
# is not.
_MEMO_LIMIT = 4096
# How many versions of a credential are in use at once, and some more.
_CREDENTIALS_KEPT = 4
# What a header tells goes into the call's report, which travels in a trailer.
_TOLD_LENGTH = 200


@dataclass(frozen=True, slots=True)
class FixedCredential:
    """A credential that never changes; `secrets` are the parts of the headers that nobody may
    see."""

    headers: Headers = field(repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def sign(self) -> Sign | None:
        """As Credential.sign: nothing does."""
        return None

    def refused(self, headers: Headers) -> Headers | None:
        """As Credential.refused: there is no other."""
        return None

    def redacted(self, message: str, headers: Headers) -> str:
        """As Credential.redacted."""
        for secret in self.secrets:
            message = message.replace(secret, "[redacted]")
        return message


class WithHeaders:
    """A credential whose requests carry further headers, in the place of those of the same name."""

    def __init__(self, inner: Credential, further: Headers) -> None:
        self._inner = inner
        self._further = further
        self._names = {name for name, _ in further}
        # What the inner credential gives, and what became of it: one, or two during a change.
        self._made: dict[Headers, Headers] = {}

    @property
    def headers(self) -> Headers:
        """As Credential.headers."""
        return self._with(self._inner.headers)

    @property
    def sign(self) -> Sign | None:
        """As Credential.sign."""
        return self._inner.sign

    def refused(self, headers: Headers) -> Headers | None:
        """As Credential.refused."""
        other = self._inner.refused(self._without(headers))
        return None if other is None else self._with(other)

    def redacted(self, message: str, headers: Headers) -> str:
        """As Credential.redacted."""
        return self._inner.redacted(message, self._without(headers))

    def _with(self, inner: Headers) -> Headers:
        made = self._made.get(inner)
        if made is None:
            kept = tuple(each for each in inner if each[0] not in self._names)
            made = kept + self._further
            if len(self._made) >= _CREDENTIALS_KEPT:
                del self._made[next(iter(self._made))]
            self._made[inner] = made
        return made

    def _without(self, headers: Headers) -> Headers:
        return next((inner for inner, made in self._made.items() if made == headers), headers)


@dataclass(frozen=True, slots=True)
class Gateway:
    """The headers by which a gateway before the vendor is told of calls, and tells of them;
    empty where it has none."""

    request_id: str = ""
    trace_id: str = ""
    cache_status: str = ""

    def note(self, headers: Mapping[str, str], record: v1.Attempt) -> None:
        """Writes down what an answer's headers tell."""
        if trace_id := headers.get(self.trace_id):
            record.gateway_trace_id = trace_id[:_TOLD_LENGTH]
        if cache_status := headers.get(self.cache_status):
            record.gateway_cache_status = cache_status[:_TOLD_LENGTH]


@dataclass(frozen=True, slots=True)
class Following:
    """What is needed where answers take several requests: the codec, and where they may go."""

    codec: ExchangeCodec
    sites: Sites


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How to reach one provider. `credential` gives the headers of every request, and `sign` is its
    own; `framing` is the parser of a streamed answer's bytes."""

    provider: str
    codec: Codec
    base_url: str
    credential: Credential = field(repr=False)
    connect_timeout: float = 5.0
    header_timeout: float = 600.0
    max_body_bytes: int = 64 * 1024 * 1024
    framing: Callable[[], Framing] = SseParser
    # None: one request has one answer.
    following: Following | None = None
    # None: nothing stands before the vendor.
    gateway: Gateway | None = None
    sign: Sign | None = None


@dataclass(frozen=True, slots=True)
class Binding:
    """One deployment's endpoint, and what its codec must know of it."""

    endpoint: Endpoint
    target: CodecTarget


class Table:
    """What one call works with from start to end, however often the configuration changes.

    Replaced as a whole on reload, never changed; its health, which changes with every call,
    is carried over by the one that builds the next table.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        endpoints: Mapping[str, Endpoint],
        health: HealthTable,
        flags_of: Callable[[str, str], Mapping[str, str | int | bool]],
        headers_of: Mapping[str, Headers] = MappingProxyType({}),
        *,
        manner_of: Callable[[str, str, str], tuple[Codec, bool]] | None = None,
    ) -> None:
        """`flags_of` gives the codec's switches for a provider and a vendor's model id,
        `headers_of` the further headers of single deployments, by name. `manner_of` gives the
        codec, and whether the model may reason, for a provider, a model and the dialect that a
        deployment demands, or ""; None: each provider's own codec."""
        self.snapshot = snapshot
        self.endpoints = endpoints
        self.health = health
        self.flags_of = flags_of
        self._headers_of = headers_of
        self._manner_of = manner_of or (lambda provider, *_: (self.endpoints[provider].codec, True))
        self._bindings: dict[str, Binding] = {}
        self._permitted: dict[Caller, frozenset[str] | None] = {}

    def binding(self, deployment: Deployment) -> Binding:
        """The endpoint and codec target of a deployment of this table."""
        binding = self._bindings.get(deployment.name)
        if binding is None:
            binding = self.bound(
                deployment.provider,
                deployment.provider_model,
                dialect=deployment.dialect,
                max_output_tokens=deployment.max_output_tokens or None,
            )
            if further := self._headers_of.get(deployment.name):
                credential = WithHeaders(binding.endpoint.credential, further)
                binding = replace(
                    binding, endpoint=replace(binding.endpoint, credential=credential)
                )
            if len(self._bindings) >= _MEMO_LIMIT + len(self.snapshot.deployments):
                self._bindings.clear()
            self._bindings[deployment.name] = binding
        return binding

    def bound(
        self,
        provider: str,
        model: str,
        *,
        dialect: str = "",
        max_output_tokens: int | None = None,
    ) -> Binding:
        """The endpoint and codec target of a provider's model; an empty dialect is the one that
        the model is known to be spoken to in."""
        endpoint = self.endpoints[provider]
        codec, reasons = self._manner_of(provider, model, dialect)
        if codec is not endpoint.codec:
            following = endpoint.following if isinstance(codec, ExchangeCodec) else None
            endpoint = replace(
                endpoint, codec=codec, framing=framing_of(codec), following=following
            )
        target = CodecTarget(model, max_output_tokens, self.flags_of(provider, model), reasons)
        return Binding(endpoint, target)

    def permitted_models(self, caller: Caller, asked: str) -> frozenset[str] | None:
        """The models that a caller may use, as Query.models; None means every one.

        `asked` is the model of the request, which the caller is known to be permitted: a
        passed-through vendor model is no public one.
        """
        permitted = self._public_models(caller)
        if permitted is None or not asked or asked in permitted:
            return permitted
        return permitted | {asked}

    def _public_models(self, caller: Caller) -> frozenset[str] | None:
        try:
            return self._permitted[caller]
        except KeyError:
            names = self.snapshot.models
            allowed = frozenset(name for name in names if caller.permits(name))
            permitted = None if len(allowed) == len(names) else allowed
            if len(self._permitted) >= _MEMO_LIMIT:
                self._permitted.clear()
            self._permitted[caller] = permitted
            return permitted
