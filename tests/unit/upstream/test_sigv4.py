"""Signatures are botocore's own, for fixed times and keys."""

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock
from urllib.parse import quote

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from trunkline_server.upstream.http import HttpRequest
from trunkline_server.upstream.sigv4 import AwsKeys, SigV4

NOW = 1_767_225_601.75
STAMP = "20260101T000001Z"
LONG_TERM = AwsKeys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
TEMPORARY = LONG_TERM._replace(token="FwoGZXIvYXdzEXAMPLE//token==")

models = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1).map(
    lambda name: quote(name, safe="")
)


@contextmanager
def botocore_at(now: float) -> Iterator[None]:
    moment = dt.datetime.fromtimestamp(now, dt.UTC).replace(tzinfo=None)
    with mock.patch("botocore.auth.get_current_datetime", return_value=moment):
        yield


def botocores_own(
    method: str, url: str, headers: dict[str, str], body: bytes, keys: AwsKeys
) -> dict[str, str]:
    """The headers of a request that botocore signs by itself."""
    request = AWSRequest(method, url, headers, body)
    credentials = Credentials(keys.access_key, keys.secret_key, keys.token or None)
    with botocore_at(NOW):
        SigV4Auth(credentials, "bedrock", "eu-central-1").add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


def ours(
    method: str, url: str, headers: tuple[tuple[str, str], ...], body: bytes, keys: AwsKeys
) -> HttpRequest:
    signing = SigV4("bedrock", "eu-central-1", lambda: keys, lambda: NOW)
    return signing(HttpRequest(method, url, headers, body))


@pytest.mark.parametrize("keys", [LONG_TERM, TEMPORARY], ids=["long-term", "temporary"])
@given(model=models, query=st.sampled_from(["", "?b=2&a=1&a=0", "?x=%2F"]), body=st.binary())
def test_a_signature_is_botocores(keys: AwsKeys, model: str, query: str, body: bytes) -> None:
    url = f"https://bedrock-runtime.eu-central-1.amazonaws.com/model/{model}/converse{query}"
    headers = (("content-type", "application/json"),)
    wanted = botocores_own("POST", url, dict(headers), body, keys)
    signed = dict(ours("POST", url, headers, body, keys).headers)
    assert signed["authorization"] == wanted["authorization"]
    assert signed["x-amz-date"] == wanted["x-amz-date"] == STAMP
    assert signed.get("x-amz-security-token") == wanted.get("x-amz-security-token")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:4566/model/a%3A0/invoke",
        "https://vpce-1.bedrock-runtime.us-east-1.vpce.amazonaws.com:443/model/a/invoke",
        "http://[::1]:80/",
        "https://EXAMPLE.com",
    ],
)
def test_hosts_and_ports_are_signed_as_they_are_sent(url: str) -> None:
    wanted = botocores_own("GET", url, {"x-amz-meta": "a  b "}, b"", LONG_TERM)
    signed = dict(ours("GET", url, (("x-amz-meta", "a  b "),), b"", LONG_TERM).headers)
    assert signed["authorization"] == wanted["authorization"]


def test_what_hops_may_change_is_not_signed() -> None:
    headers = (("user-agent", "trunkline"), ("traceparent", "00-1"), ("accept", "*/*"))
    request = ours("POST", "https://a.example/x", headers, b"{}", TEMPORARY)
    authorization = dict(request.headers)["authorization"]
    assert "SignedHeaders=host;x-amz-date;x-amz-security-token," in authorization
    assert request.headers[:3] == headers


def test_new_keys_sign_from_the_next_request_on() -> None:
    keys = [LONG_TERM]
    signing = SigV4("bedrock", "eu-central-1", lambda: keys[0], lambda: NOW)
    request = HttpRequest("POST", "https://a.example/x", (), b"{}")
    first = dict(signing(request).headers)["authorization"]
    keys[0] = AwsKeys("AKIDOTHER", "other")
    second = dict(signing(request).headers)["authorization"]
    assert "AKIDEXAMPLE/20260101/eu-central-1/bedrock/aws4_request" in first
    assert "AKIDOTHER/" in second
    assert first != second


def test_no_repr_shows_a_secret() -> None:
    assert repr(TEMPORARY) == "AwsKeys(AKIDEXAMPLE)"
