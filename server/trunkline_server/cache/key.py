"""The key of an answer: a digest of everything that shapes it, and of nothing else.

In the key are whose the answer is, what may answer, and every field of the request but those
in EXCLUDED: a field that is new in the contract is in the key until it is named there. Which
of the deployments that may answer is healthy, cheap or free just now is not in the key: any of
them may speak for the model that was asked for. That set itself is, by its fingerprint, so
that a model name pointed elsewhere does not go on giving the old model's answers.
"""

import hashlib
from collections.abc import Iterable, MutableSequence, Sequence

from google.protobuf.message import Message

from trunkline import v1
from trunkline_server.cache.policy import Source
from trunkline_server.cache.ports import Caller

# Paths of request fields that do not shape the answer. The context's user_id does where it is
# sent to a vendor; `hedge` says when a second deployment is tried and not which ones may be.
EXCLUDED = frozenset({"cache", "context", "request_id", "routing.hedge"})

# Raise the version when keys or stored values change their meaning.
_GENERATE = b"trunkline/1/generate\0"
_EMBED = b"trunkline/1/embed\0"

_PARTS = ("config", "tool_choice", "response_format", "requirements", "routing", "provider_options")


def scope_of(caller: Caller) -> str:
    """Whose answers a caller shares: the tenant's, or without a tenant the caller's own.

    The prefix keeps a tenant apart from a caller of the same name, and the source callers who
    are called alike by different ones.
    """
    tenant = caller.tenant
    return f"t/{tenant}" if tenant else f"c/{len(caller.source)}/{caller.source}/{caller.name}"


def fingerprint(members: Iterable[Sequence[str]]) -> bytes:
    """The digest of what may answer: for each deployment whatever identifies the model and
    its settings, such as provider, provider_model and fixed options. Order does not count."""
    rows = sorted({_framed(*(text.encode() for text in member)) for member in members})
    return hashlib.sha256(_framed(*rows)).digest()


def generate_key(request: v1.GenerateRequest, scope: str, source: Source) -> bytes:
    """The digest of a generation, the same for a streamed and a unary one."""
    body = v1.GenerateRequest()
    body.CopyFrom(request)
    body.ClearField("cache")
    body.ClearField("context")
    body.ClearField("request_id")
    _canonical(body)
    digest = _begun(_GENERATE, request, scope, source)
    digest.update(body.SerializeToString(deterministic=True))
    return digest.digest()


def embed_keys(request: v1.EmbedRequest, scope: str, source: Source) -> list[bytes]:
    """One digest for each input."""
    body = v1.EmbedRequest()
    body.CopyFrom(request)
    body.ClearField("inputs")
    body.ClearField("cache")
    body.ClearField("context")
    body.ClearField("request_id")
    _canonical(body)
    begun = _begun(_EMBED, request, scope, source)
    begun.update(_framed(body.SerializeToString(deterministic=True)))
    digests = []
    for text in request.inputs:
        digest = begun.copy()
        digest.update(text.encode())
        digests.append(digest.digest())
    return digests


def _begun(
    kind: bytes, request: v1.GenerateRequest | v1.EmbedRequest, scope: str, source: Source
) -> "hashlib._Hash":
    user = b""
    if source.sends_user_id and request.HasField("context"):
        user = request.context.user_id.encode()
    return hashlib.sha256(kind + _framed(scope.encode(), source.fingerprint, user))


def _framed(*parts: bytes) -> bytes:
    """Parts in one piece from which each can be told again, so that no two lists agree."""
    return b"".join([len(part).to_bytes(4, "big") + part for part in parts])


def _canonical(body: v1.GenerateRequest | v1.EmbedRequest) -> None:
    """Writes what means the same in the same way: sets in order, absence for emptiness."""
    if body.HasField("routing"):
        routing = body.routing
        routing.ClearField("hedge")
        _in_order(routing.allowed_providers)
        _in_order(routing.denied_providers)
    if body.HasField("requirements"):
        requirements = body.requirements
        _in_order(requirements.capabilities)
        requirements.data_residency = requirements.data_residency.lower()
    _drop_empty(body, _PARTS if isinstance(body, v1.GenerateRequest) else _PARTS[3:])


def _drop_empty(body: Message, names: Sequence[str]) -> None:
    for name in names:
        if body.HasField(name) and not getattr(body, name).ByteSize():
            body.ClearField(name)


def _in_order(names: MutableSequence[str]) -> None:
    if len(names) > 1:
        ordered = sorted(set(names))
        del names[:]
        names.extend(ordered)
