"""The routing table in force: the snapshot, how to reach its providers, and their health."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from trunkline_server.engine.ports import Caller, Credential, Headers
from trunkline_server.providers.codec import Codec, CodecTarget
from trunkline_server.routing.health import HealthTable
from trunkline_server.routing.snapshot import Deployment, Snapshot
from trunkline_server.upstream.framing import Framing
from trunkline_server.upstream.sse import SseParser

# Passed-through model ids and callers are unbounded in number; what is remembered of them
# is not.
_MEMO_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class FixedCredential:
    """A credential that never changes; `secrets` are the parts of the headers that nobody may
    see."""

    headers: Headers = field(repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def refused(self, headers: Headers) -> Headers | None:
        """As Credential.refused: there is no other."""
        return None

    def redacted(self, message: str, headers: Headers) -> str:
        """As Credential.redacted."""
        for secret in self.secrets:
            message = message.replace(secret, "[redacted]")
        return message


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How to reach one provider. `credential` gives the headers of every request, `framing` the
    parser of a streamed answer's bytes."""

    provider: str
    codec: Codec
    base_url: str
    credential: Credential = field(repr=False)
    connect_timeout: float = 5.0
    header_timeout: float = 600.0
    max_body_bytes: int = 64 * 1024 * 1024
    framing: Callable[[], Framing] = SseParser


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
    ) -> None:
        """`flags_of` gives the codec's switches for a provider and a vendor's model id."""
        self.snapshot = snapshot
        self.endpoints = endpoints
        self.health = health
        self.flags_of = flags_of
        self._bindings: dict[str, Binding] = {}
        self._permitted: dict[Caller, frozenset[str] | None] = {}

    def binding(self, deployment: Deployment) -> Binding:
        """The endpoint and codec target of a deployment of this table."""
        binding = self._bindings.get(deployment.name)
        if binding is None:
            endpoint = self.endpoints[deployment.provider]
            target = CodecTarget(
                deployment.provider_model,
                deployment.max_output_tokens or None,
                self.flags_of(deployment.provider, deployment.provider_model),
            )
            binding = Binding(endpoint, target)
            if len(self._bindings) >= _MEMO_LIMIT + len(self.snapshot.deployments):
                self._bindings.clear()
            self._bindings[deployment.name] = binding
        return binding

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
