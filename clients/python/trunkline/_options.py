"""What a client is built from: where the router is, who calls, and how the channel behaves."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Self

import grpc

SERVICE = "trunkline.v1.InferenceService"
DEFAULT_TARGET = "127.0.0.1:50051"
DEFAULT_TIMEOUT = 60.0

Metadata = tuple[tuple[str, str | bytes], ...]
ChannelOption = tuple[str, str | int]

# Fills a dictionary with headers that carry a trace; OpenTelemetry's `propagate.inject` is one.
Propagator = Callable[[dict[str, str]], None]

# What costs nothing and changes nothing may be sent again. The other calls are billed; the router
# owns their retries, and a second owner would multiply them.
_SENT_AGAIN = ("Route", "BatchRoute", "CountTokens", "ListModels", "ListProviderHealth")
SERVICE_CONFIG = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": [{"service": SERVICE, "method": method} for method in _SENT_AGAIN],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
        # Retries stop while more than a few calls in a hundred fail.
        "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.1},
    }
)

_MEBIBYTE = 1024 * 1024


def _package_version() -> str:
    try:
        return version("trunkline")
    except PackageNotFoundError:  # Run from a source tree that is not installed.
        return "unknown"


CHANNEL_OPTIONS: Mapping[str, str | int] = {
    "grpc.primary_user_agent": f"trunkline-python/{_package_version()}",
    # The service config here holds, whatever a DNS TXT record says.
    "grpc.service_config": SERVICE_CONFIG,
    "grpc.service_config_disable_resolution": 1,
    # gRPC stops at 4 MiB; a request may hold several images of up to 20 MiB.
    "grpc.max_send_message_length": 64 * _MEBIBYTE,
    "grpc.max_receive_message_length": 64 * _MEBIBYTE,
    # Finds a dead peer under a long call. gRPC servers hang up on clients that ping more
    # often than every five minutes without data, unless they were told otherwise.
    "grpc.keepalive_time_ms": 310_000,
    "grpc.keepalive_timeout_ms": 20_000,
    # gRPC waits up to two minutes between attempts to reconnect: too long for a neighbour.
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.max_reconnect_backoff_ms": 5_000,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsOptions:
    """TLS by PEM bytes; empty means the system's roots and no client certificate.

    `private_key` and `certificate_chain` go together: they are the client's own, for mutual
    TLS. `server_name` is the name to expect in the server's certificate where it differs
    from the target's host.
    """

    root_certificates: bytes | None = None
    private_key: bytes | None = field(default=None, repr=False)
    certificate_chain: bytes | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.private_key is None) != (self.certificate_chain is None):
            raise ValueError("a client certificate needs both private_key and certificate_chain")

    @classmethod
    def from_files(
        cls,
        ca_file: str | Path | None = None,
        *,
        cert_file: str | Path | None = None,
        key_file: str | Path | None = None,
        server_name: str | None = None,
    ) -> Self:
        """Reads PEM files. Raises OSError when one cannot be read."""
        return cls(
            root_certificates=_read(ca_file),
            private_key=_read(key_file),
            certificate_chain=_read(cert_file),
            server_name=server_name,
        )


def _read(path: str | Path | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """The settings that Client and AsyncClient share, checked. Raises ValueError."""

    target: str = DEFAULT_TARGET
    api_key: str | None = field(default=None, repr=False)
    tls: TlsOptions | None = None
    timeout: float = DEFAULT_TIMEOUT
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)
    propagate: Propagator | None = None
    channel_options: Mapping[str, str | int] = field(default_factory=dict)
    _fixed_metadata: Metadata = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.target:
            raise ValueError("target must not be empty")
        check_timeout(self.timeout)
        fixed = {name.lower(): value for name, value in self.metadata.items()}
        if self.api_key is not None:
            # The key itself stays out of the message.
            if not self.api_key or not (self.api_key.isascii() and self.api_key.isprintable()):
                raise ValueError("api_key must be printable ASCII and not empty")
            if "authorization" in fixed:
                raise ValueError("metadata must not hold authorization beside an api_key")
            fixed["authorization"] = f"Bearer {self.api_key}"
        object.__setattr__(self, "_fixed_metadata", tuple(fixed.items()))

    def call_metadata(self, extra: Mapping[str, str] | None) -> Metadata:
        """The metadata of one call: the client's own, the trace's and the call's."""
        if extra is None and self.propagate is None:
            return self._fixed_metadata
        headers: dict[str, str] = {}
        if self.propagate is not None:
            self.propagate(headers)
        if extra is not None:
            headers.update(extra)
        return (
            *self._fixed_metadata,
            *((name.lower(), value) for name, value in headers.items()),
        )

    def call_timeout(self, timeout: float | None) -> float:
        """The deadline of one call, in seconds from now."""
        if timeout is None:
            return self.timeout
        check_timeout(timeout)
        return timeout

    def channel_arguments(self) -> list[ChannelOption]:
        """The channel's options; the caller's stand above ours."""
        arguments = {**CHANNEL_OPTIONS, **self.channel_options}
        if self.tls is not None and self.tls.server_name:
            arguments.setdefault("grpc.ssl_target_name_override", self.tls.server_name)
        return list(arguments.items())

    def credentials(self) -> grpc.ChannelCredentials | None:
        """The channel's credentials, None for plaintext."""
        if self.tls is None:
            return None
        return grpc.ssl_channel_credentials(
            self.tls.root_certificates, self.tls.private_key, self.tls.certificate_chain
        )


def check_timeout(timeout: float) -> None:
    """Raises ValueError unless it is a positive, finite number of seconds."""
    if not 0 < timeout < float("inf"):
        raise ValueError(f"timeout must be a positive number of seconds, not {timeout}")


def from_environment(environ: Mapping[str, str] | None = None) -> ClientOptions:
    """Options from TRUNKLINE_* variables; an empty variable counts as unset.

    TRUNKLINE_TARGET, TRUNKLINE_API_KEY and TRUNKLINE_TIMEOUT (seconds); TRUNKLINE_TLS=true
    for TLS by the system's roots; TRUNKLINE_CA_FILE, TRUNKLINE_CERT_FILE, TRUNKLINE_KEY_FILE
    and TRUNKLINE_SERVER_NAME, each of which means TLS too. Raises ValueError naming the
    variable that is wrong, OSError when a file cannot be read.
    """
    values = os.environ if environ is None else environ

    def get(name: str) -> str | None:
        return values.get(f"TRUNKLINE_{name}") or None

    timeout = get("TIMEOUT")
    try:
        seconds = DEFAULT_TIMEOUT if timeout is None else float(timeout)
        check_timeout(seconds)
    except ValueError as error:
        raise ValueError("TRUNKLINE_TIMEOUT must be a positive number of seconds") from error
    wants_tls = (get("TLS") or "false").lower()
    if wants_tls not in {"true", "false"}:
        raise ValueError("TRUNKLINE_TLS must be true or false")
    files = (get("CA_FILE"), get("CERT_FILE"), get("KEY_FILE"), get("SERVER_NAME"))
    tls = None
    if wants_tls == "true" or any(files):
        if (files[1] is None) != (files[2] is None):
            raise ValueError("TRUNKLINE_CERT_FILE and TRUNKLINE_KEY_FILE go together")
        tls = TlsOptions.from_files(
            files[0], cert_file=files[1], key_file=files[2], server_name=files[3]
        )
    return ClientOptions(
        target=get("TARGET") or DEFAULT_TARGET, api_key=get("API_KEY"), tls=tls, timeout=seconds
    )
