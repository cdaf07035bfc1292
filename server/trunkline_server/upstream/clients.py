"""Which HTTP client serves."""

import os
import urllib.request

from trunkline_server.upstream.aiohttp_client import AiohttpClient
from trunkline_server.upstream.http import HttpClient
from trunkline_server.upstream.http1.client import Http1Client


def make_client(
    *,
    proxies: bool,
    max_connections_per_origin: int = 0,
    idle_seconds: float = 30.0,
    ca_file: str | os.PathLike[str] | None = None,
    user_agent: str = "trunkline",
) -> HttpClient:
    """The router's own client; aiohttp's where it can do what the own one cannot.

    With `proxies`, those that the environment names are used, such as by HTTPS_PROXY. The
    environment is looked at once, here. To be called inside a running event loop.
    """
    if proxies and _proxies_named():
        return AiohttpClient(
            max_connections_per_origin=max_connections_per_origin,
            idle_seconds=idle_seconds,
            ca_file=ca_file,
            trust_env=True,
            user_agent=user_agent,
        )
    return Http1Client(
        max_connections_per_origin=max_connections_per_origin,
        idle_seconds=idle_seconds,
        ca_file=ca_file,
        user_agent=user_agent,
    )


def _proxies_named() -> bool:
    named = urllib.request.getproxies()
    return "http" in named or "https" in named
