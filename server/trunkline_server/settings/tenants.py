"""The configuration of who pays: tenants, their projects, and what they have paid for."""

from dataclasses import dataclass
from typing import Annotated

from trunkline_server.settings import values as read
from trunkline_server.settings.networks import cidrs

# What a tier may withhold; governance.access.tiers.FEATURES says the same.
FEATURES = (
    "streaming",
    "tools",
    "parallel_tools",
    "vision",
    "audio",
    "file",
    "structured_output",
    "reasoning",
    "embedding",
    "image_generation",
    "transcription",
    "speech",
    "rerank",
    "hedge",
    "cache",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantSettings:
    """`tenants.NAME`: a customer, or a part of the house, that pays for its own calls."""

    # What people call it. Empty: its name.
    display_name: Annotated[str, read.text_or_empty] = ""
    # The tier of those of its callers who have none. Empty: access.default_tier.
    tier: Annotated[str, read.text] = ""
    # Roles of all its callers, on top of their own.
    roles: Annotated[tuple[str, ...], read.texts] = ()
    # The networks that its callers must come from. Empty: anywhere.
    networks: Annotated[tuple[str, ...], cidrs] = ()
    # Refuses everything to everyone of it.
    suspended: Annotated[bool, read.boolean] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectSettings:
    """`projects.TENANT/PROJECT`: a part of a tenant, for limits, budgets and reports."""

    # What stands before the slash. Empty: that.
    tenant: Annotated[str, read.text] = ""
    # What people call it. Empty: its name.
    display_name: Annotated[str, read.text_or_empty] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TierSettings:
    """`tiers.NAME`: what a tenant or a key has paid for."""

    # Shell patterns over public model names, and over names of routes.
    models: Annotated[tuple[str, ...], read.texts] = ("*",)
    routes: Annotated[tuple[str, ...], read.texts] = ("*",)
    # What may be used. Empty: all.
    features: Annotated[tuple[str, ...], read.choices(*FEATURES)] = ()
    # The most that may be asked for one answer, and that prompt and answer may have together, in
    # tokens. 0: no bound.
    max_output_tokens: Annotated[int, read.integer(0)] = 0
    max_context_tokens: Annotated[int, read.integer(0)] = 0
