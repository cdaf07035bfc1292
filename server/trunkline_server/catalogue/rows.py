"""The catalogue's provider rows: what the router knows of each provider it has heard of."""

from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Annotated

from trunkline_server.settings import (
    AuthSettings,
    GatewaySettings,
    map_of,
    read,
    read_auth,
    read_records,
    record,
)

_BEARER = AuthSettings(header="authorization", prefix="Bearer ")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderRow:
    """One row of providers.yaml. A configuration may override every field."""

    # The codec it speaks, and the URL that the codec's paths are joined to.
    dialect: Annotated[str, read.text]
    base_url: Annotated[str, read.base_url]
    # Its URLs in some regions, where they are others.
    base_urls: Annotated[dict[str, str], map_of(read.base_url)] = field(default_factory=dict)
    # Further dialects that it speaks there, to models of which the catalogue says so.
    dialects: Annotated[tuple[str, ...], read.texts] = ()
    # Where the API key stands, and the variables that usually hold it.
    auth: Annotated[AuthSettings, read_auth] = _BEARER
    env: Annotated[tuple[str, ...], read.texts] = ()
    # Further headers of every request.
    headers: Annotated[dict[str, str], read.plain_headers] = field(default_factory=dict)
    # The provider of the price table. Empty: no price is known.
    price_provider: Annotated[str, read.text] = ""
    # Whether that table names its models as it does itself, so that they may be offered where
    # there is no configuration.
    listed: Annotated[bool, read.boolean] = True
    # Switches of the dialect; each codec documents its own.
    flags: Annotated[dict[str, str | int | bool], read.flags] = field(default_factory=dict)
    # Further hosts that its answers may send the router to; "*.HOST" is all below HOST.
    follow: Annotated[tuple[str, ...], read.hosts] = ()
    # The headers of a gateway before vendors.
    gateway: Annotated[GatewaySettings | None, record(GatewaySettings)] = None
    region: Annotated[str, read.text] = ""
    # Where it processes data. Empty: not promised.
    residency: Annotated[tuple[str, ...], read.words] = ()
    # What an active probe fetches.
    probe_path: Annotated[str, read.text] = "/models"


@cache
def built_in_rows() -> dict[str, ProviderRow]:
    """The catalogue's own rows by kind. Raises ConfigError for a row that is wrong."""
    return read_rows(resources.files(__package__).joinpath("providers.yaml").read_text("utf-8"))


def read_rows(text: str, name: str = "providers.yaml") -> dict[str, ProviderRow]:
    """The rows in a text. Raises ConfigError with every problem found."""
    return read_records(text, name, record(ProviderRow))
