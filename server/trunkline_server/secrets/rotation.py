"""Providers' credentials in use: the current one, the one before it, and the change of both.

A rotation tries the new credential at the vendor, and only then switches. For a grace period the
old one stays at hand: a call that was refused under either is repeated once under the other, so
that no call fails whichever of the two the vendor's machines know.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from trunkline import v1
from trunkline_server.clock import Clock
from trunkline_server.errors import TrunklineError
from trunkline_server.secrets.ports import Headers, Probe, SecretAudit, SecretError, SecretValue

DEFAULT_GRACE = 3600.0


class CanaryError(SecretError):
    """The new credential did not pass its trial at the vendor; the old one stays in use.

    `refused` tells a vendor that refused it from one that gave no verdict.
    """

    def __init__(self, message: str, *, refused: bool) -> None:
        super().__init__(message)
        self.refused = refused


def bundle(values: Sequence[str]) -> str:
    """The secrets of a provider's headers as one value, which is rotated as a whole: no header
    can hold the line breaks between them."""
    return "\n".join(values)


def parts(value: SecretValue) -> tuple[str, ...]:
    """The secrets in a value, as `bundle` took them."""
    return tuple(value.value.split("\n"))


@dataclass(frozen=True, slots=True)
class Generation:
    """A credential and the headers that carry it."""

    value: SecretValue
    headers: Headers = field(repr=False)


@dataclass(frozen=True, slots=True)
class Pair:
    """What a provider's credential is made of. `grace_ends` is in Unix seconds."""

    current: SecretValue
    previous: SecretValue | None = None
    grace_ends: float = 0.0


class Credential:
    """One provider's credential. The request path reads `headers` and, after a 401, calls
    `refused`; neither waits."""

    __slots__ = ("_clock", "_expiry", "_grace_ends", "current", "headers", "lock", "previous")

    def __init__(self, current: Generation, clock: Clock) -> None:
        self.lock = asyncio.Lock()
        self.current = current
        # Those of the current generation, to be read without a further step.
        self.headers = current.headers
        self.previous: Generation | None = None
        self._clock = clock
        self._grace_ends = 0.0
        self._expiry: asyncio.TimerHandle | None = None

    @property
    def sign(self) -> None:
        """As the engine's Credential.sign: headers say it all."""
        return

    def refused(self, headers: Headers) -> Headers | None:
        """The headers under which a call refused under `headers` may be repeated, once.

        None if there is no other credential: the refusal is then the answer.
        """
        if headers != self.headers:
            return self.headers
        previous = self.previous
        if previous is None or self._clock.monotonic() >= self._grace_ends:
            return None
        return previous.headers if previous.headers != headers else None

    def redacted(self, message: str, headers: Headers) -> str:
        """A message without the values of this credential, whichever generation a vendor quotes.

        `headers` are those that a request was sent under: long ones outlive their credential.
        """
        for secret in self._hidden(headers):
            message = message.replace(secret, "[redacted]")
        return message

    def _hidden(self, headers: Headers) -> list[str]:
        """Every value that may have been sent, the longest first: one may contain another."""
        found = set(parts(self.current.value))
        if self.previous is not None:
            found.update(parts(self.previous.value))
        if headers is not self.headers:
            for header in headers:
                if header not in self.headers:
                    # With and without what stands before the value, such as "Bearer ".
                    found.update((header[1], header[1].rpartition(" ")[2]))
        return sorted(found - {""}, key=len, reverse=True)

    def switch(self, new: Generation, grace: float) -> None:
        """Makes `new` the current one; the one in use stays as the previous for the grace."""
        self._install(new, self.current, grace)

    def install(self, current: Generation, previous: Generation | None, grace: float) -> None:
        """Takes over a pair as it was written down."""
        self._install(current, previous if grace > 0 else None, grace)

    def grace_ends(self) -> float:
        """When the previous credential is dropped, in Unix seconds."""
        return self._grace_ends - self._clock.monotonic() + self._clock.wall()

    def forget_previous(self) -> None:
        """Drops the previous credential."""
        self.previous = None
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    def _install(self, current: Generation, previous: Generation | None, grace: float) -> None:
        self.forget_previous()
        self.current, self.headers = current, current.headers
        if previous is None or grace <= 0:
            return
        self.previous = previous
        self._grace_ends = self._clock.monotonic() + grace
        # What is no longer valid is no longer in memory.
        self._expiry = asyncio.get_running_loop().call_later(grace, self.forget_previous)


class CredentialVault:
    """The credentials of all providers. All changes are audited; no value is."""

    def __init__(self, clock: Clock, probe: Probe, audit: SecretAudit) -> None:
        self._clock = clock
        self._probe = probe
        self._audit = audit
        self._credentials: dict[str, Credential] = {}
        self._render: dict[str, Callable[[str], Headers]] = {}

    def load(self, provider: str, value: SecretValue, render: Callable[[str], Headers]) -> None:
        """Sets a provider's credential at the start; `render` makes the headers of all its
        requests from a value. A provider that is loaded already keeps its credential, and
        takes the new headers."""
        self._render[provider] = render
        credential = self._credentials.get(provider)
        if credential is None:
            self._credentials[provider] = Credential(self._generation(provider, value), self._clock)
            self._audit("credential.load", provider, {"version": value.version})
        else:
            pair = self.pair(provider)
            previous = self._generation(provider, pair.previous) if pair.previous else None
            grace = pair.grace_ends - self._clock.wall()
            credential.install(self._generation(provider, pair.current), previous, grace)

    def forget(self, provider: str) -> None:
        """Drops a provider's credential; calls under way keep theirs."""
        self._render.pop(provider, None)
        credential = self._credentials.pop(provider, None)
        if credential is not None:
            credential.forget_previous()

    def credential(self, provider: str) -> Credential:
        """A provider's credential, for its endpoint to hold. Raises KeyError."""
        return self._credentials[provider]

    async def rotate(self, provider: str, new: SecretValue, grace: float = DEFAULT_GRACE) -> None:
        """Tries `new` at the vendor and switches to it.

        Raises CanaryError; nothing has changed then. A value that is in use already is no
        rotation. Rotations of one provider wait for each other.
        """
        credential = self._credentials[provider]
        async with credential.lock:
            old = credential.current.value
            if new.value == old.value:
                return
            detail = {"version": new.version, "previous": old.version, "grace_s": f"{grace:g}"}
            await self.trial(provider, new, detail)
            # Rendered anew: the headers around the value may have been changed meanwhile.
            credential.switch(self._generation(provider, new), grace)
            self._audit("credential.rotate", provider, detail)

    def adopt(self, provider: str, pair: Pair) -> None:
        """Takes over a pair that another replica wrote down, which has tried it."""
        credential = self._credentials[provider]
        grace = pair.grace_ends - self._clock.wall()
        previous = self._generation(provider, pair.previous) if pair.previous else None
        credential.install(self._generation(provider, pair.current), previous, grace)
        self._audit("credential.adopt", provider, {"version": pair.current.version})

    def pair(self, provider: str) -> Pair:
        """What would be written down of a provider's credential now."""
        credential = self._credentials[provider]
        previous = credential.previous
        if previous is None:
            return Pair(credential.current.value)
        return Pair(credential.current.value, previous.value, credential.grace_ends())

    async def trial(self, provider: str, value: SecretValue, detail: Mapping[str, str]) -> None:
        """Tries a value at the vendor, without more. Raises CanaryError; `detail` goes into the
        audit trail with it."""
        try:
            await self._probe(provider, self._generation(provider, value).headers)
        except TrunklineError as error:
            refused = error.reason in {
                v1.ERROR_REASON_AUTHENTICATION,
                v1.ERROR_REASON_AUTHORIZATION,
                v1.ERROR_REASON_PROVIDER_CREDENTIALS,
            }
            verdict = "refused" if refused else "no verdict"
            self._audit("credential.canary_failed", provider, {**detail, "verdict": verdict})
            # The vendor's own words are left out: some quote the key.
            raise CanaryError(
                f"{provider}: the new credential was not taken into use: {verdict} by the"
                f" provider ({v1.ErrorReason.Name(error.reason)})",
                refused=refused,
            ) from None

    def _generation(self, provider: str, value: SecretValue) -> Generation:
        return Generation(value, self._render[provider](value.value))
