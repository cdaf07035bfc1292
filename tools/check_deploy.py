"""`make check-deploy`: whether what stands in deploy/ is what its tools take, without a cluster.

The Dockerfile by hadolint; the chart by helm, what it renders by Kubernetes' published schemas, and
the router's configuration in it by the router; Prometheus' files by promtool; what compose.yaml
names, by looking. Prints what is wrong, and fails if anything is.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from tests.support.server_process import find_program

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "trunkline"
BIN = Path(sys.executable).parent
# The oldest that the chart claims to support, and a new one.
KUBERNETES = ("1.27", "1.34")
# Ways of setting the chart's values that each render something that others do not.
VALUES: Sequence[Sequence[str]] = (
    (),
    ("autoscaling.enabled=true", "openai.enabled=true", "secretFiles={vendors}"),
    (
        *("tlsSecret=tls", "clientCaSecret=roots"),
        "networkPolicy.operators[0].podSelector.matchLabels.role=prometheus",
    ),
    (
        *("networkPolicy.enabled=false", "config.admin.keys[0].name=root"),
        f"config.admin.keys[0].hash=sha256:{'0' * 64}",
    ),
)
# What stands for the secrets that a pod has in its environment.
STORES = {"DATABASE_URL": "postgres://u:p@db/trunkline", "REDIS_URL": "redis://redis:6379"}


def main() -> int:
    """Returns the exit code."""
    problems = [
        *_missing(),
        *_said([str(BIN / "hadolint"), str(DEPLOY / "Dockerfile")]),
        *_said([_found("promtool"), "check", "config", str(DEPLOY / "prometheus/prometheus.yml")]),
        *_said([_found("helm"), "lint", "--strict", str(CHART)]),
        *(problem for values in VALUES for problem in _chart(values)),
        *_router(DEPLOY / "compose" / "trunkline.yaml"),
        *_compose(yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text("utf-8"))),
        *_dashboards(),
    ]
    print("\n".join(problems) if problems else "deploy/ is sound")
    return 1 if problems else 0


def _missing() -> Iterator[str]:
    for program, package in (("promtool", "prometheus"), ("helm", "make tools")):
        if not _found(program):
            yield f"{program} is not installed: {package}"


def _found(program: str) -> str:
    tools = str(ROOT / ".tools" / "bin").removeprefix("/")
    return str(find_program(program, tools) or "")


def _said(command: Sequence[str], env: Mapping[str, str] | None = None) -> list[str]:
    """What a command that fails said; nothing of one that does not, or that is not here."""
    if not command[0]:
        return []
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    return [f"{' '.join(command)}:\n{done.stdout}{done.stderr}"] if done.returncode else []


def _chart(values: Sequence[str]) -> Iterator[str]:
    helm = _found("helm")
    if not helm:
        return
    for version in KUBERNETES:
        command = [helm, "template", "trial", str(CHART), "--kube-version", version]
        command += [word for value in values for word in ("--set", value)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            yield f"{' '.join(command)}:\n{done.stderr}"
            continue
        with tempfile.TemporaryDirectory() as folder:
            rendered = Path(folder) / "rendered.yaml"
            rendered.write_text(done.stdout, "utf-8")
            validate = [str(BIN / "kubernetes-validate"), "-k", version, "--strict", "--quiet"]
            yield from _said([*validate, str(rendered)])
            for each in yaml.safe_load_all(done.stdout):
                if each and each["kind"] == "ConfigMap":
                    config = Path(folder) / "trunkline.yaml"
                    text = each["data"]["trunkline.yaml"]
                    # Certificates are the cluster's.
                    tree = yaml.safe_load(text)
                    tree["server"].pop("tls", None)
                    config.write_text(yaml.safe_dump(tree), "utf-8")
                    yield from _router(config)


def _router(config: Path) -> list[str]:
    """What the router says against a configuration."""
    return _said([str(BIN / "trunkline"), "check", str(config)], {**os.environ, **STORES})


def _compose(tree: Any) -> Iterator[str]:
    """Names in compose.yaml of what is not there."""
    services, volumes, configs = tree["services"], tree["volumes"], tree["configs"]
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            if other not in services:
                yield f"compose.yaml: {name} depends on {other}, which is no service"
            elif how["condition"] == "service_healthy" and not _has_health(services[other]):
                yield f"compose.yaml: {name} waits for {other}, which tells no health"
        for volume in service.get("volumes", ()):
            source = volume.get("source", "") if isinstance(volume, dict) else volume.split(":")[0]
            if not _is_there(source, volumes):
                yield f"compose.yaml: {name} mounts {source}, which is not there"
        for config in service.get("configs", ()):
            if config["source"] not in configs:
                yield f"compose.yaml: {name} has config {config['source']}, which is none"
    for name, config in configs.items():
        if not (DEPLOY / "compose" / config["file"]).exists():
            yield f"compose.yaml: config {name} is {config['file']}, which is not there"


def _is_there(source: str, volumes: Mapping[str, object]) -> bool:
    """Whether what is mounted is a volume or a file; what a variable names is the user's."""
    if source.startswith("."):
        return (DEPLOY / "compose" / source).exists()
    return not source or source.startswith("${") or source in volumes


def _has_health(service: Any) -> bool:
    # The router's image brings its own.
    return "healthcheck" in service or "build" in service


def _dashboards() -> Iterator[str]:
    """Metrics of dashboards and alerts that the README, and so the router, does not know."""
    told = (ROOT / "README.md").read_text("utf-8")
    known = set(re.findall(r"^\| `(trunkline_\w+)` \|", told, re.MULTILINE))
    expressions = []
    for path in sorted((DEPLOY / "grafana/dashboards").glob("*.json")):
        for panel in json.loads(path.read_text("utf-8"))["panels"]:
            expressions += [(path.name, each["expr"]) for each in panel.get("targets", ())]
    rules = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text("utf-8"))
    for group in rules["groups"]:
        expressions += [(rule["alert"], rule["expr"]) for rule in group["rules"]]
    for where, expression in expressions:
        for name in re.findall(r"trunkline_\w+", expression):
            if not {name, re.sub(r"_(?:bucket|sum|count)$", "", name)} & known:
                yield f"{where}: the router has no metric {name}"


if __name__ == "__main__":
    sys.exit(main())
