"""Where the configuration comes from: a file, the environment, or the simulator's own."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from importlib import resources
from pathlib import Path
from typing import Any

from trunkline_server.catalogue.environment import from_environment
from trunkline_server.catalogue.known import known
from trunkline_server.settings import ConfigError, Settings, check_settings, load, parse

SIMULATOR_ADDRESS = "127.0.0.1:18080"
_SIMULATOR_KEY = "TRUNKLINE_SIMULATOR_KEY"


class Origin(Enum):
    """What a configuration was made from."""

    FILE = "file"
    ENVIRONMENT = "environment"
    SIMULATOR = "simulator"


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the command line says besides; None leaves it to the configuration."""

    config: Path | None = None
    listen: str | None = None
    ops_listen: str | None = None
    admin_listen: str | None = None
    openai_listen: str | None = None
    workers: int | None = None
    simulator_listen: str = SIMULATOR_ADDRESS


@dataclass(frozen=True, slots=True)
class Source:
    """A configuration, and where it came from."""

    settings: Settings
    origin: Origin


def read_source(overrides: Overrides, env: Mapping[str, str] | None = None) -> Source:
    """The configuration to run. Raises ConfigError."""
    env = os.environ if env is None else env
    if overrides.config is not None:
        settings = load(overrides.config, env, known())
        origin = Origin.FILE
    elif (made := from_environment(env)) is not None:
        settings, origin = made, Origin.ENVIRONMENT
    else:
        settings = _simulated(overrides.simulator_listen, env)
        origin = Origin.SIMULATOR
    return Source(overridden(settings, overrides), origin)


def overridden(settings: Settings, overrides: Overrides) -> Settings:
    """The settings with the command line's word in place of theirs. Raises ConfigError."""
    given: dict[str, Any] = {
        # An address of `off` is none.
        name: "" if value == "off" else value
        for name in ("listen", "ops_listen", "admin_listen", "openai_listen", "workers")
        if (value := getattr(overrides, name)) is not None
    }
    if not given:
        return settings
    settings = replace(settings, server=replace(settings.server, **given))
    problems = list(check_settings(settings, known(), {}))
    if problems:
        raise ConfigError("the command line", problems)
    return settings


def _simulated(address: str, env: Mapping[str, str]) -> Settings:
    file = resources.files("trunkline_server.simulator") / "trunkline.yaml"
    text = file.read_text("utf-8").replace(SIMULATOR_ADDRESS, address)
    key = {_SIMULATOR_KEY: env.get(_SIMULATOR_KEY, "simulated")}
    return parse(text, "simulator/trunkline.yaml", {**env, **key}, known())
