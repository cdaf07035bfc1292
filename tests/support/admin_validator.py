"""Judges changes by the configuration's own parser, and by references between resources."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from trunkline_server.catalogue.known import known
from trunkline_server.rpc.admin.ports import Problem, Proposal
from trunkline_server.settings import ConfigError, parse

_MAPS = ("providers", "models", "routes")
_ITEM = re.compile(r"deployments\[(\d+)\]\.?(.*)")
# A provider that is always there: a configuration names at least one.
_ANCHOR = "always-there"
ENVIRONMENT = {"OPENAI_API_KEY": "sk-of-the-environment", "OTHER_KEY": "sk-other"}


class SettingsValidator:
    """A Validator by which providers, deployments, models and routes must load as a file would,
    and keys, projects and tenants name what is there."""

    async def check(self, proposal: Proposal) -> Sequence[Problem]:
        return [*_parsed(proposal.documents), *_dangling(proposal.documents)]


def _parsed(documents: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Iterator[Problem]:
    of = {kind: dict(documents.get(kind, {})) for kind in (*_MAPS, "deployments")}
    of["providers"][_ANCHOR] = {"dialect": "openai", "base_url": "http://127.0.0.1:9"}
    names = list(of["deployments"])
    text = orjson.dumps(
        {
            **{kind: of[kind] for kind in _MAPS},
            "deployments": [{**of["deployments"][name], "name": name} for name in names],
        }
    ).decode()
    try:
        parse(text, "state", ENVIRONMENT, known())
    except ConfigError as error:
        for problem in error.problems:
            item = _ITEM.match(problem.path)
            if item:
                yield Problem("deployments", names[int(item[1])], item[2], problem.message)
                continue
            kind, _, rest = problem.path.partition(".")
            name = max((each for each in of[kind] if f"{rest}.".startswith(f"{each}.")), key=len)
            yield Problem(kind, name, rest.removeprefix(name).lstrip("."), problem.message)


def _dangling(documents: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Iterator[Problem]:
    tenants, tiers = documents.get("tenants", {}), documents.get("tiers", {})
    for kind in ("keys", "projects"):
        for name, document in documents.get(kind, {}).items():
            tenant = document.get("tenant", "")
            if tenant and tenant not in tenants:
                yield Problem(kind, name, "tenant", "names no tenant that there is")
    for kind in ("keys", "tenants"):
        for name, document in documents.get(kind, {}).items():
            tier = document.get("tier", "")
            if tier and tier not in tiers:
                yield Problem(kind, name, "tier", "names no tier that there is")
