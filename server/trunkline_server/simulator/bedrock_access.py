"""Who calls the simulated Bedrock runtime: a bearer key, or a request signed by SigV4.

Any access key is good but "invalid"; its secret is SECRET_KEY. A session token is good but
"expired". The signature is computed anew from the request as it came, after
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html, for
whatever date, region and service it names.
"""

import hashlib
import hmac
import re
from urllib.parse import quote

from aiohttp import web

from trunkline_server.simulator.vendor_error import VendorError

SECRET_KEY = "simulated-secret"  # noqa: S105  # It opens nothing.

_ALGORITHM = "AWS4-HMAC-SHA256"
_AUTHORIZATION = re.compile(
    rf"{_ALGORITHM} Credential=(?P<key>[^/,]+)/(?P<scope>[^,]+), ?"
    r"SignedHeaders=(?P<names>[^,]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)


def access_key(request: web.BaseRequest) -> str:
    """The caller's key. Raises VendorError when it is missing or invalid."""
    given = request.headers.get("authorization", "")
    if given.startswith("Bearer "):
        key = given.removeprefix("Bearer ")
        if key == "invalid":
            raise VendorError(
                "permission",
                "Authentication failed: Please make sure your API Key is valid.",
            )
        return key
    found = _AUTHORIZATION.fullmatch(given)
    if found is None:
        raise VendorError(
            "authentication",
            "Missing Authentication Token",
            code="MissingAuthenticationTokenException",
        )
    if found["key"] == "invalid":
        raise VendorError("authentication")
    if request.headers.get("x-amz-security-token") == "expired":
        raise VendorError(
            "authentication",
            "The security token included in the request is expired",
            code="ExpiredTokenException",
        )
    return found["key"]


def verify(request: web.BaseRequest, body: bytes) -> None:
    """Raises VendorError for a signature that is not this request's."""
    found = _AUTHORIZATION.fullmatch(request.headers.get("authorization", ""))
    if found is None:
        return
    names = found["names"].split(";")
    scope = found["scope"].split("/")
    if "host" not in names or len(scope) != 4 or scope[3] != "aws4_request":
        raise _mismatch()
    told = "\n".join(
        (
            _ALGORITHM,
            request.headers.get("x-amz-date", ""),
            found["scope"],
            hashlib.sha256(_canonical(request, body, names).encode()).hexdigest(),
        )
    )
    key = f"AWS4{SECRET_KEY}".encode()
    for step in scope:
        key = hmac.digest(key, step.encode(), "sha256")
    if not hmac.compare_digest(hmac.digest(key, told.encode(), "sha256").hex(), found["signature"]):
        raise _mismatch()


def _canonical(request: web.BaseRequest, body: bytes, names: list[str]) -> str:
    # The path as it came over the wire is encoded once more.
    path, _, query = request.raw_path.partition("?")
    headers = "".join(f"{name}:{_value(request, name)}\n" for name in names)
    return "\n".join(
        (
            request.method,
            quote(path, safe="/~"),
            "&".join(sorted(query.split("&"))) if query else "",
            headers,
            ";".join(names),
            hashlib.sha256(body).hexdigest(),
        )
    )


def _value(request: web.BaseRequest, name: str) -> str:
    return ",".join(" ".join(value.split()) for value in request.headers.getall(name, ()))


def _mismatch() -> VendorError:
    return VendorError(
        "authentication",
        "The request signature we calculated does not match the signature you provided. Check your "
        "AWS Secret Access Key and signing method. Consult the service documentation for details.",
        code="InvalidSignatureException",
    )
