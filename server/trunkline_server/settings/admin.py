"""The configuration of the control plane: who administers."""

from dataclasses import dataclass
from typing import Annotated

from trunkline_server.settings import values as read
from trunkline_server.settings.records import list_of, record
from trunkline_server.settings.values import Context
from trunkline_server.settings.yaml_source import Node

ADMIN_LISTEN = "127.0.0.1:50052"


def admin_address(node: Node, context: Context) -> str:
    """HOST:PORT, `auto`, or `off`, which is the empty text."""
    return node.text if node.text == "auto" else read.address_or_off(node, context)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminKeySettings:
    """`admin.keys[]`: a key that opens the control plane and nothing else."""

    # For logs, metrics and the audit trail.
    name: Annotated[str, read.text]
    # sha256: and 64 hexadecimal digits, as `trunkline hash-key` prints.
    hash: Annotated[bytes, read.key_hash]
    # What it may do: admin, viewer, auditor, or roles of your own.
    roles: Annotated[tuple[str, ...], read.texts] = ("admin",)
    # Unix seconds; in the file a date or a time. None: never.
    expires: Annotated[float | None, read.moment] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminSettings:
    """`admin`: the control plane at `server.admin_listen`."""

    # Callers' keys open it too, as far as their roles reach.
    keys: Annotated[tuple[AdminKeySettings, ...], list_of(record(AdminKeySettings))] = ()
