"""What each provider of the table carries of the contract."""

from collections.abc import Sequence

from trunkline import v1
from trunkline_server.engine.table import Table
from trunkline_server.errors import TrunklineError, Violation, invalid
from trunkline_server.providers.carried import carried
from trunkline_server.providers.codec import CodecTarget

# What is quoted of names that are nobody's.
_QUOTED = 128


def provider_schemas(table: Table, *, fields: bool) -> Sequence[v1.ProviderSchema]:
    """The mapping of every provider, by name; without `fields` what they are called and speak."""
    return [provider_schema(table, name, "", fields=fields) for name in sorted(table.endpoints)]


def provider_schema(
    table: Table, provider: str, provider_model: str, *, fields: bool = True
) -> v1.ProviderSchema:
    """One provider's mapping. Raises NOT_FOUND."""
    endpoint = table.endpoints.get(provider)
    if endpoint is None:
        raise _unknown(provider)
    flags = table.flags_of(provider, provider_model)
    schema = v1.ProviderSchema(provider=provider, dialect=endpoint.codec.dialect)
    schema.flags.update(dict(flags))
    if fields:
        target = CodecTarget(provider_model or "model", flags=flags)
        schema.fields.extend(carried(endpoint.codec, target))
    return schema


def refusals(
    table: Table,
    provider: str,
    provider_model: str,
    request: v1.GenerateRequest | v1.EmbedRequest,
) -> Sequence[Violation]:
    """What a provider's dialect would refuse of a request that the contract permits. Raises
    NOT_FOUND."""
    endpoint = table.endpoints.get(provider)
    if endpoint is None:
        raise _unknown(provider)
    target = CodecTarget(
        provider_model or "model", 1, flags=table.flags_of(provider, provider_model)
    )
    try:
        if isinstance(request, v1.GenerateRequest):
            endpoint.codec.encode_generate(request, target, stream=False)
        else:
            endpoint.codec.encode_embed(request, target)
    except TrunklineError as error:
        if error.violations:
            return error.violations
        return invalid("", error.message).violations
    return ()


def _unknown(provider: str) -> TrunklineError:
    name = provider[:_QUOTED]
    return TrunklineError(
        v1.ERROR_REASON_NOT_FOUND,
        f"there is no provider {name!r}",
        metadata={"kind": "providers", "name": name},
    )
