"""AWS Signature Version 4 of requests, by botocore's own steps.

After docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html. What
botocore does in one call is done here step by step, because the time is the router's clock's,
and because only headers that no hop between here and AWS may change are signed.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import urlsplit

from botocore.auth import SIGV4_TIMESTAMP, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

from trunkline_server.upstream.http import HttpRequest

_PORTS = {"https": 443, "http": 80}


class AwsKeys(NamedTuple):
    """What a request is signed with; `token` is empty where the keys are no temporary ones."""

    access_key: str
    secret_key: str
    token: str = ""

    def __repr__(self) -> str:
        return f"AwsKeys({self.access_key})"


class SigV4:
    """Signs requests to one service in one region."""

    __slots__ = ("_keys", "_region", "_service", "_signer", "_signing_with", "_wall")

    def __init__(
        self, service: str, region: str, keys: Callable[[], AwsKeys], wall: Callable[[], float]
    ) -> None:
        """`keys` gives those of the moment and may raise; `wall` is Unix seconds."""
        self._service = service
        self._region = region
        self._keys = keys
        self._wall = wall
        self._signing_with: AwsKeys | None = None

    def __call__(self, request: HttpRequest) -> HttpRequest:
        """The request with its date, its signature and, for temporary keys, their token."""
        keys = self._keys()
        if keys is not self._signing_with:
            credentials = ReadOnlyCredentials(keys.access_key, keys.secret_key, keys.token or None)
            self._signer = SigV4Auth(credentials, self._service, self._region)
            self._signing_with = keys
        stamp = datetime.fromtimestamp(self._wall(), UTC).strftime(SIGV4_TIMESTAMP)
        added = [("x-amz-date", stamp)]
        if keys.token:
            added.append(("x-amz-security-token", keys.token))
        signed = {name: value for name, value in request.headers if _is_signed(name)}
        signed.update(added)
        signed.setdefault("host", _host(request.url))
        added.append(("authorization", self._authorization(request, signed, stamp)))
        return request._replace(headers=(*request.headers, *added))

    def _authorization(self, request: HttpRequest, headers: dict[str, str], stamp: str) -> str:
        signer = self._signer
        asked = AWSRequest(request.method, request.url, headers, request.body)
        asked.context["timestamp"] = stamp
        told = signer.string_to_sign(asked, signer.canonical_request(asked))
        names = signer.signed_headers(signer.headers_to_sign(asked))
        return (
            f"AWS4-HMAC-SHA256 Credential={signer.scope(asked)}, SignedHeaders={names}, "
            f"Signature={signer.signature(told, asked)}"
        )


def _is_signed(name: str) -> bool:
    return name in {"content-type", "host"} or name.startswith("x-amz-")


def _host(url: str) -> str:
    """The host header that the HTTP client sends for a URL."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    return host if parts.port in {None, _PORTS[parts.scheme]} else f"{host}:{parts.port}"
