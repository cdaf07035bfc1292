"""The configuration of vendors: their endpoints, and the models that are deployed there."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated

from trunkline_server.settings import values as read
from trunkline_server.settings.cloud_auth import (
    AwsAuthSettings,
    CloudAuthSettings,
    EntraAuthSettings,
    GoogleAuthSettings,
    cloud_reader,
)
from trunkline_server.settings.records import record
from trunkline_server.settings.secrets import Secret
from trunkline_server.settings.values import Context
from trunkline_server.settings.yaml_source import Node

_PLACES = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSettings:
    """`providers.NAME.auth`: how requests are authenticated, in exactly one way."""

    # The header of the API key, such as authorization or x-api-key.
    header: Annotated[str, read.header_name] = ""
    # What stands before the key, such as "Bearer " with its space. Empty: nothing.
    prefix: Annotated[str, read.text_or_empty] = ""
    # Identities that a cloud knows, in place of an API key.
    aws: Annotated[AwsAuthSettings | None, cloud_reader(AwsAuthSettings)] = None
    entra: Annotated[EntraAuthSettings | None, cloud_reader(EntraAuthSettings)] = None
    google: Annotated[GoogleAuthSettings | None, cloud_reader(GoogleAuthSettings)] = None

    @property
    def cloud(self) -> CloudAuthSettings | None:
        """The cloud's identity, if it is one."""
        return self.aws or self.entra or self.google


def read_auth(node: Node, context: Context) -> AuthSettings:
    """A reader of `auth`, here and in the catalogue's rows."""
    ways = [name for name in ("header", "aws", "entra", "google") if name in node.entries]
    if node.kind == "map" and len(ways) != 1:
        told = f"has {' and '.join(ways)}" if ways else "lacks header"
        context.report(node, f"{told}; write one of header, aws, entra and google")
    elif node.kind == "map" and ways != ["header"] and "prefix" in node.entries:
        context.report(node.entries["prefix"], "stands before a key in a header; there is none")
    return record(AuthSettings)(node, context)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSettings:
    """`providers.NAME.probe`: an active health check, off unless set."""

    # What is fetched with GET, relative to the base URL, credentials included.
    path: Annotated[str, read.text] = "/models"
    # If set, a one-token answer is asked of this model instead, which costs money.
    model: Annotated[str, read.text] = ""
    # How often.
    interval: Annotated[float, read.duration(1)] = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """`providers.NAME.gateway`: the headers of a gateway, such as Portkey, before the vendors.
    Empty: it has no such header."""

    # The request header that takes the call's id.
    request_id: Annotated[str, read.header_name] = ""
    # The answer's headers that tell its own trace id, and what its cache did.
    trace_id: Annotated[str, read.header_name] = ""
    cache_status: Annotated[str, read.header_name] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """`providers.NAME`: one vendor endpoint and account. Unset fields come from the kind."""

    # The catalogue row it is made from. Empty: the row of the provider's own name, if any.
    kind: Annotated[str, read.text] = ""
    # The dialect it speaks; needed, with base_url, for hosts that have no row. Where there is
    # one, it holds for every model, whatever the catalogue says of some.
    dialect: Annotated[str, read.text] = ""
    # {region} in it is the region, another name in braces a flag of that name.
    base_url: Annotated[str, read.base_url] = ""
    # A reference: env:NAME, file:PATH, or into a secret manager, which `secrets` is about.
    # None: the variable that the row names, if base_url is the row's.
    api_key: Annotated[Secret | None, read.provider_secret] = None
    auth: Annotated[AuthSettings | None, read_auth] = None
    # Further headers of every request. Values may be references, as of api_key.
    headers: Annotated[dict[str, str | Secret], read.provider_headers] = field(default_factory=dict)
    # Switches of the dialect, for hosts that deviate from it; each codec documents its own.
    flags: Annotated[dict[str, str | int | bool], read.flags] = field(default_factory=dict)
    # Hosts beside base_url's that answers may name addresses at, such as "*.example.com"; they are
    # asked over TLS and without credentials. None: the row's.
    follow: Annotated[tuple[str, ...] | None, read.hosts] = None
    # A gateway's headers. None: the row's.
    gateway: Annotated[GatewaySettings | None, record(GatewaySettings)] = None
    # Where the endpoint is, and where it processes data, such as [eu]. Deployments inherit both.
    region: Annotated[str, read.text] = ""
    residency: Annotated[tuple[str, ...] | None, read.words] = None
    # The provider of the price table whose prices hold here.
    price_provider: Annotated[str, read.text] = ""
    # To an established connection, and from the request to the answer's headers.
    connect_timeout: Annotated[float, read.duration(0.001, 300)] = 5.0
    header_timeout: Annotated[float, read.duration(0.001, 86_400)] = 600.0
    probe: Annotated[ProbeSettings | None, record(ProbeSettings)] = None


def place_of(url: str, region: str, flags: Mapping[str, str | int | bool]) -> dict[str, str]:
    """What goes where a URL has a name in braces, by the name: the region where it is {region},
    a flag of that name elsewhere. Empty for what is not there."""
    names = _PLACES.findall(url)
    return {name: region if name == "region" else str(flags.get(name, "")) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class CapabilitySettings:
    """`deployments[].capabilities`: a list replaces what the catalogue says of the model; a map
    with `add` and `remove` changes it."""

    replace: tuple[str, ...] | None = None
    add: Annotated[tuple[str, ...], read.words] = ()
    remove: Annotated[tuple[str, ...], read.words] = ()


def _capabilities(node: Node, context: Context) -> CapabilitySettings:
    if node.kind == "map":
        return record(CapabilitySettings)(node, context)
    return CapabilitySettings(replace=read.words(node, context))


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceSettings:
    """`deployments[].price`: exact decimals of USD, per million tokens unless said otherwise.

    What is left out is charged as the kind that contains it: cached_input, cache_write,
    input_audio and input_image as input, cache_write_1h as cache_write, reasoning, output_audio
    and output_image as output.
    """

    input: Annotated[Decimal | None, read.dollars] = None
    output: Annotated[Decimal | None, read.dollars] = None
    cached_input: Annotated[Decimal | None, read.dollars] = None
    cache_write: Annotated[Decimal | None, read.dollars] = None
    cache_write_1h: Annotated[Decimal | None, read.dollars] = None
    reasoning: Annotated[Decimal | None, read.dollars] = None
    input_audio: Annotated[Decimal | None, read.dollars] = None
    output_audio: Annotated[Decimal | None, read.dollars] = None
    cached_input_audio: Annotated[Decimal | None, read.dollars] = None
    input_image: Annotated[Decimal | None, read.dollars] = None
    output_image: Annotated[Decimal | None, read.dollars] = None
    # For each image made; and where that depends on how, by QUALITY/SIZE or either alone, such
    # as hd/1024x1792, hd, or 1024x1792.
    image: Annotated[Decimal | None, read.dollars] = None
    images: Annotated[tuple[tuple[str, Decimal], ...], read.dollars_by_name] = ()
    # For an hour of sound heard, and of sound made; a price per minute times 60.
    input_audio_hour: Annotated[Decimal | None, read.dollars] = None
    output_audio_hour: Annotated[Decimal | None, read.dollars] = None
    # For a million characters spoken.
    input_characters: Annotated[Decimal | None, read.dollars] = None
    # For one search, and for one request.
    search_unit: Annotated[Decimal | None, read.dollars] = None
    per_request: Annotated[Decimal, read.dollars] = Decimal(0)


# Those of which a price needs one.
_SUFFICIENT = (
    *("input", "output", "image", "images", "input_audio_hour", "output_audio_hour"),
    *("input_characters", "search_unit"),
)


def read_price(node: Node, context: Context) -> PriceSettings:
    """A price that charges something."""
    if node.kind == "map" and not node.entries.keys() & set(_SUFFICIENT):
        context.report(node, f"lacks all of {', '.join(_SUFFICIENT)}; set at least one")
    return record(PriceSettings)(node, context)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentSettings:
    """`deployments[]`: a provider's model in a region. Unset facts come from the catalogue."""

    # A key of `providers`, and the vendor's own id of the model.
    provider: Annotated[str, read.text]
    model: Annotated[str, read.text]
    # Unique, without a slash. Empty: PROVIDER-MODEL, slashes as hyphens.
    name: Annotated[str, read.text] = ""
    # Empty or None: the provider's.
    region: Annotated[str, read.text] = ""
    residency: Annotated[tuple[str, ...] | None, read.words] = None
    # For the strategies: the lowest priority goes first; weight is relative, and 0 means only
    # when nothing else is left.
    priority: Annotated[int, read.integer(0, 10**6)] = 0
    weight: Annotated[float, read.number(0, 10**6)] = 1.0
    # From 0 to 1.
    quality: Annotated[float | None, read.number(0, 1)] = None
    capabilities: Annotated[CapabilitySettings | None, _capabilities] = None
    # What fits into the context window, and the most that the model writes.
    context_tokens: Annotated[int | None, read.integer(1, 10**9)] = None
    max_output_tokens: Annotated[int | None, read.integer(1, 10**9)] = None
    # Replaces the price table's price.
    price: Annotated[PriceSettings | None, read_price] = None
    # Further headers of its requests, in the place of the provider's of the same name; no secrets.
    headers: Annotated[dict[str, str], read.open_headers] = field(default_factory=dict)
    # False keeps it out of every plan.
    enabled: Annotated[bool, read.boolean] = True
    # The dialect that this model is spoken to in. Empty: the provider's, if that is set, else
    # the catalogue's for the model, else that of the provider's kind.
    dialect: Annotated[str, read.text] = ""
