"""What each provider of the table carries of the contract."""

from collections.abc import Sequence

from trunkline import v1
from trunkline_server.engine.table import Table
from trunkline_server.errors import TrunklineError, Violation, invalid
from trunkline_server.providers.carried import carried
from trunkline_server.providers.codec import CodecTarget

# What is quoted of names that are nobody's.
_QUOTED = 128
# What codecs are given where no model is known.
_NO_MODEL = "model"
_OUTPUT_TOKENS = 4096


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
    model = provider_model or _some_model(table, provider)
    target = _target(table, provider, model)
    schema = v1.ProviderSchema(
        provider=provider, dialect=endpoint.codec.dialect, provider_model=model
    )
    schema.flags.update(dict(target.flags))
    if fields:
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
    target = _target(table, provider, provider_model or _some_model(table, provider))
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


def _some_model(table: Table, provider: str) -> str:
    """A vendor's model that a provider is configured for; empty if there is none."""
    models = (row.provider_model for row in table.snapshot.deployments if row.provider == provider)
    return next(models, "")


def _target(table: Table, provider: str, model: str) -> CodecTarget:
    # The limit is for vendors that must be told one.
    return CodecTarget(model or _NO_MODEL, _OUTPUT_TOKENS, table.flags_of(provider, model))


def _unknown(provider: str) -> TrunklineError:
    name = provider[:_QUOTED]
    return TrunklineError(
        v1.ERROR_REASON_NOT_FOUND,
        f"there is no provider {name!r}",
        metadata={"kind": "providers", "name": name},
    )
