"""From a file to Settings."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from trunkline_server.settings.checks import check_settings, deployment_name
from trunkline_server.settings.known import Known
from trunkline_server.settings.problems import ConfigError, InvalidValueError, Problem
from trunkline_server.settings.providers import ProviderSettings
from trunkline_server.settings.records import map_of
from trunkline_server.settings.schema import Settings, read_settings
from trunkline_server.settings.secrets import Secret, resolve_secret
from trunkline_server.settings.state import StateSettings
from trunkline_server.settings.stored import (
    STORED_KINDS,
    Stored,
    graft,
    located,
    owned_by_store,
    references_of,
)
from trunkline_server.settings.values import Context, Reader
from trunkline_server.settings.yaml_source import read_yaml

R = TypeVar("R")


def load(
    path: str | Path,
    env: Mapping[str, str] | None = None,
    known: Known | None = None,
    stored: Stored | None = None,
) -> Settings:
    """The settings in a file. `env` is the process's environment unless given; `stored` is as
    for `parse`.

    Raises ConfigError with every problem found, or the one that the file cannot be read.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(str(path), [Problem(0, "", f"cannot be read: {reason}")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), [Problem(0, "", "is not UTF-8 text")]) from error
    return parse(text, str(path), env, known, base=file.parent, stored=stored)


def parse(
    text: str,
    name: str,
    env: Mapping[str, str] | None = None,
    known: Known | None = None,
    *,
    base: Path | None = None,
    stored: Stored | None = None,
) -> Settings:
    """The settings in a text; `name` is what problems call it, and relative paths in it start
    at `base`. Raises ConfigError with every problem found.

    `stored` is what the store holds of the kinds that it owns. None is not known: where it owns
    any, what is returned is partial, and good for finding the store.
    """
    root, problems = read_yaml(text, name)
    if root.kind != "map":
        raise ConfigError(name, [Problem(root.line, "", "is not a map of sections")])
    owned = owned_by_store(root)
    root, doubled = graft(root, stored or Stored(), owned)
    context = Context(
        os.environ if env is None else env,
        base or Path(),
        [*problems, *doubled],
        references=references_of(root, StateSettings().references),
    )
    known = known or Known()
    settings = read_settings(root, context)
    lines = {node.path: node.line for node in root.walk()}
    settings = replace(
        settings,
        providers={
            key: _with_usual_key(key, provider, known, context, lines)
            for key, provider in settings.providers.items()
        },
        files=tuple(dict.fromkeys(context.files)),
        text=text,
        partial=bool(owned) and stored is None,
        drained=frozenset() if stored is None else stored.drained,
        revision=0 if stored is None else stored.revision,
    )
    found = [*context.problems, *check_settings(settings, known, lines)]
    if found:
        names = resource_names(settings)
        raise ConfigError(name, [located(one, names, owned) for one in found], settings.files)
    return settings


def resource_names(settings: Settings) -> dict[str, list[str]]:
    """The names of resources by kind, in the order of their section."""
    names = {kind: list(getattr(settings, kind)) for kind in STORED_KINDS}
    names["deployments"] = [deployment_name(each) for each in settings.deployments]
    names["keys"] = [each.name for each in settings.keys]
    return names


def read_records(text: str, name: str, reader: Reader[R]) -> dict[str, R]:
    """A map of names to records of one kind, without secrets, such as the catalogue's files.

    Raises ConfigError with every problem found.
    """
    root, problems = read_yaml(text, name)
    context = Context({}, Path(), problems)
    try:
        records = map_of(reader)(root, context)
    except InvalidValueError as error:
        raise ConfigError(name, [Problem(root.line, "", str(error))]) from None
    if context.problems:
        raise ConfigError(name, context.problems)
    return records


def _with_usual_key(
    name: str, provider: ProviderSettings, known: Known, context: Context, lines: Mapping[str, int]
) -> ProviderSettings:
    """A provider with the API key that its kind's variable holds, unless it has its own.

    A key never goes to another host than the kind's by itself.
    """
    kind = known.kinds.get(provider.kind or name)
    if kind is None or provider.api_key is not None or provider.base_url:
        return provider
    if provider.auth is not None and provider.auth.cloud is not None:
        return provider
    reference = usual_key(kind.env, context.env)
    if reference is None:
        return provider
    try:
        secret = resolve_secret(reference, context.env, context.base)
    except InvalidValueError as error:
        path = f"providers.{name}"
        context.problems.append(Problem(lines[path], path, str(error)))
        secret = Secret("", reference)  # Wrong, as reported, but not missing besides.
    return replace(provider, api_key=secret)


def usual_key(variables: Sequence[str], env: Mapping[str, str]) -> str | None:
    """The reference to the first of some variables that is set and not blank."""
    return next((f"env:{each}" for each in variables if env.get(each, "").strip()), None)
