"""What the package declares fits what the generated stubs demand when they are loaded."""

import re
import tomllib
from pathlib import Path

from trunkline.v1 import inference_service_pb2_grpc

PACKAGE = Path(__file__).parents[3] / "clients" / "python"


def minimum(requirement: str) -> str:
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text("utf-8"))["project"]
    (found,) = (line for line in project["dependencies"] if line.startswith(f"{requirement}>="))
    return str(found.removeprefix(f"{requirement}>="))


def test_grpcio_is_at_least_the_stubs_generator() -> None:
    assert minimum("grpcio") == inference_service_pb2_grpc.GRPC_GENERATED_VERSION


def test_protobuf_is_at_least_the_stubs_generator() -> None:
    stubs = sorted((PACKAGE / "trunkline" / "v1").glob("*_pb2.py"))
    assert stubs
    for stub in stubs:
        match = re.search(
            r"^# Protobuf Python Version: (\S+)$", stub.read_text("utf-8"), re.MULTILINE
        )
        assert match is not None, stub.name
        assert match[1] == minimum("protobuf"), stub.name
