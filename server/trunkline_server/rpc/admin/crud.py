"""The five methods that every kind of resource has, by the names of the contract."""

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from trunkline.admin import v1 as admin
from trunkline_server.errors import invalid
from trunkline_server.rpc.admin.calls import Call
from trunkline_server.rpc.admin.handlers import Unary
from trunkline_server.rpc.admin.kinds import Kind
from trunkline_server.rpc.admin.resources import ResourceEngine


def crud(engine: ResourceEngine, kind: Kind) -> dict[str, Unary]:
    """The methods of a kind: ListProviders, GetProvider, CreateProvider, ..."""

    def response(method: str) -> Callable[..., Message]:
        made: Callable[..., Message] = getattr(admin, f"{method}Response")
        return made

    listed = response(f"List{kind.plural}")
    got = response(f"Get{kind.singular}")
    created = response(f"Create{kind.singular}")
    updated = response(f"Update{kind.singular}")
    deleted = response(f"Delete{kind.singular}")

    async def list_(call: Call, request: Any) -> Message:
        found, token = await engine.page(
            call,
            kind,
            prefix=request.prefix,
            tenant=request.tenant if kind.owned else "",
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return listed(**{kind.list_field: found, "next_page_token": token})

    async def get(call: Call, request: Any) -> Message:
        return got(**{kind.field: await engine.get(call, kind, request.name)})

    async def create(call: Call, request: Any) -> Message:
        message = given(request, kind)
        return created(**{kind.field: await engine.create(call, kind, message)})

    async def update(call: Call, request: Any) -> Message:
        message = given(request, kind)
        stored = await engine.update(call, kind, message, request.update_mask.paths)
        return updated(**{kind.field: stored})

    async def delete(call: Call, request: Any) -> Message:
        await engine.delete(call, kind, request.name, request.etag)
        return deleted()

    return {
        f"List{kind.plural}": list_,
        f"Get{kind.singular}": get,
        f"Create{kind.singular}": create,
        f"Update{kind.singular}": update,
        f"Delete{kind.singular}": delete,
    }


def given(request: Any, kind: Kind) -> Any:
    """The resource in a request; raises TrunklineError with INVALID_REQUEST if there is none."""
    if not request.HasField(kind.field):
        raise invalid(kind.field, "is not set")
    return getattr(request, kind.field)
