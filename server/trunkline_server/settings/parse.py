"""From a file to Settings."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from trunkline_server.settings.checks import Known, check_settings
from trunkline_server.settings.problems import ConfigError, InvalidValueError, Problem
from trunkline_server.settings.records import map_of
from trunkline_server.settings.schema import ProviderSettings, Settings, read_settings
from trunkline_server.settings.secrets import Secret, resolve_secret
from trunkline_server.settings.values import Context, Reader
from trunkline_server.settings.yaml_source import read_yaml

R = TypeVar("R")


def load(
    path: str | Path, env: Mapping[str, str] | None = None, known: Known | None = None
) -> Settings:
    """The settings in a file. `env` is the process's environment unless given.

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
    return parse(text, str(path), env, known, base=file.parent)


def parse(
    text: str,
    name: str,
    env: Mapping[str, str] | None = None,
    known: Known | None = None,
    *,
    base: Path | None = None,
) -> Settings:
    """The settings in a text; `name` is what problems call it, and relative paths in it start
    at `base`. Raises ConfigError with every problem found."""
    root, problems = read_yaml(text, name)
    if root.kind != "map":
        raise ConfigError(name, [Problem(root.line, "", "is not a map of sections")])
    context = Context(os.environ if env is None else env, base or Path(), problems)
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
    )
    found = [*context.problems, *check_settings(settings, known, lines)]
    if found:
        raise ConfigError(name, found, settings.files)
    return settings


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
