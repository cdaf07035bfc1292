"""Callers of a router under test: their keys, and what refusals tell them."""

import asyncio
import hashlib
from collections.abc import Awaitable
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from tests.support.router import PATIENCE, Router, detail, reason
from trunkline import v1

# Nobody listens there: for calls that end before anybody is called.
NOWHERE = "http://127.0.0.1:9"


def key(name: str, more: str = "") -> str:
    """The configuration of a key whose secret is `tk_` and its name; `more` in flow style."""
    digest = hashlib.sha256(f"tk_{name}".encode()).hexdigest()
    return f"  - {{name: {name}, hash: 'sha256:{digest}'{', ' if more else ''}{more}}}"


def bearer(token: str, *more: tuple[str, str]) -> list[tuple[str, str]]:
    """The metadata of whoever shows a token."""
    return [("authorization", f"Bearer {token}"), *more]


def shows(name: str, *more: tuple[str, str]) -> list[tuple[str, str]]:
    """The metadata of whoever shows the key of a name."""
    return bearer(f"tk_{name}", *more)


async def refusal(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    """The failure of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def told(error: grpc.aio.AioRpcError) -> dict[str, str]:
    """The metadata of a failure's ErrorInfo."""
    return dict(detail(error, error_details_pb2.ErrorInfo).metadata)


async def denial(call: Awaitable[Any]) -> str:
    """The rule by which a call is denied; empty if it is not, whatever else becomes of it."""
    outcomes = await asyncio.gather(call, return_exceptions=True)
    outcome = outcomes[0]
    if not isinstance(outcome, grpc.aio.AioRpcError):
        return ""
    if outcome.code() is not grpc.StatusCode.PERMISSION_DENIED:
        return ""
    rule = told(outcome)["rule"]
    assert reason(outcome) == v1.ERROR_REASON_AUTHORIZATION
    return rule


async def rule_against(router: Router, request: v1.RouteRequest, who: str, *more: Any) -> str:
    """The rule by which a dry run is denied; empty if it is answered."""
    call = router.stub.Route(request, metadata=shows(who, *more), timeout=PATIENCE)
    rule = await denial(_awaited(call))
    if not rule:
        assert await call.code() is grpc.StatusCode.OK, await call.details()
    return rule


async def _awaited(call: Awaitable[Any]) -> Any:
    return await call
