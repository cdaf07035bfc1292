"""What requests are authenticated with under identities of clouds."""

from dataclasses import dataclass

import orjson
import pytest

from trunkline import v1
from trunkline_server.app.cloud_identities import AwsCredential, BearerCredential
from trunkline_server.engine.table import FixedCredential
from trunkline_server.errors import UpstreamError
from trunkline_server.secrets.identities import Held
from trunkline_server.secrets.ports import SecretValue
from trunkline_server.upstream.http import HttpRequest

REQUEST = HttpRequest("POST", "https://vendor.example/v1/x", (("content-type", "a/b"),), b"{}")


@dataclass
class Clock:
    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


def held(clock: Clock, value: str = "", life: float | None = 3600.0) -> Held:
    made = Held("azure", "entra", clock)
    if value:
        expires = None if life is None else clock.now + life
        made.value = SecretValue(value, "v1", expires)
        made.fetched_at = clock.now
    return made


def bearer(kept: Held) -> BearerCredential:
    return BearerCredential(FixedCredential((("x-team", "sk-team"),), ("sk-team",)), kept)


def test_a_token_stands_in_the_headers_and_nowhere_in_messages() -> None:
    clock = Clock()
    credential = bearer(held(clock, "token-1"))
    headers = credential.headers
    assert headers == (("x-team", "sk-team"), ("authorization", "Bearer token-1"))
    assert credential.sign(REQUEST) is REQUEST
    credential = bearer(held(clock, "token-2"))
    # Of what a request went out under, and of what is in use by now.
    told = credential.redacted("no token-1, token-2 or sk-team", headers)
    assert told == "no [redacted], [redacted] or [redacted]"


def test_nothing_is_sent_without_a_valid_token() -> None:
    clock = Clock()
    for kept in (held(clock), held(clock, "token-1", life=-1.0)):
        credential = bearer(kept)
        with pytest.raises(UpstreamError, match=r"mend providers\.azure\.auth\.entra") as lacking:
            credential.sign(REQUEST)
        assert lacking.value.reason == v1.ERROR_REASON_AUTHENTICATION
        assert not lacking.value.sent
    assert bearer(held(clock)).headers == (("x-team", "sk-team"),)


def test_a_refused_token_is_repeated_under_a_newer_one_alone() -> None:
    clock = Clock()
    kept = held(clock, "token-1")
    credential = bearer(kept)
    sent = credential.headers
    clock.now += 60
    assert credential.refused(sent) is None
    # The next one is asked for at once.
    assert kept.bell.is_set()
    kept.value = SecretValue("token-2", "v2", clock.now + 3600)
    assert credential.refused(sent) == credential.headers


def test_keys_sign_and_stay_out_of_messages() -> None:
    clock = Clock()
    keys = orjson.dumps(["AKID", "secret-key", "session-token"]).decode()
    kept = held(clock, keys)
    credential = AwsCredential(FixedCredential(()), kept, "bedrock", "us-east-1", clock)
    signed = dict(credential.sign(REQUEST).headers)
    assert signed["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKID/19700101/us-east-1")
    assert signed["x-amz-security-token"] == "session-token"
    assert credential.redacted("secret-key session-token", ()) == "[redacted] [redacted]"
    assert credential.refused(()) is None
    clock.now += 7200
    with pytest.raises(UpstreamError, match="it has expired"):
        credential.sign(REQUEST)
