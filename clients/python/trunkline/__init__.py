"""Trunkline's Python client: the contract's messages and a thin typed layer over gRPC.

>>> from trunkline import Client, text_of
>>> with Client() as client:  # doctest: +SKIP
...     print(text_of(client.generate("Say hello.", model="gpt-5")))
"""

from trunkline._async_client import AsyncClient
from trunkline._async_streams import AsyncSpeechStream, AsyncStream
from trunkline._client import Client, Pending
from trunkline._errors import (
    AuthenticationError,
    CacheMissError,
    CallCancelledError,
    ContentFilterError,
    ContextLengthError,
    DeadlineError,
    FieldViolation,
    InternalError,
    InvalidRequestError,
    ModelNotFoundError,
    NoEligibleDeploymentError,
    PermissionDeniedError,
    ProviderCredentialsError,
    QuotaExceededError,
    QuotaViolation,
    RateLimitError,
    StreamInterruptedError,
    TrunklineError,
    UnavailableError,
)
from trunkline._options import TlsOptions
from trunkline._requests import text_of
from trunkline._streams import SpeechStream, Stream
from trunkline.assemble import MessageAssembler

__all__ = [
    "AsyncClient",
    "AsyncSpeechStream",
    "AsyncStream",
    "AuthenticationError",
    "CacheMissError",
    "CallCancelledError",
    "Client",
    "ContentFilterError",
    "ContextLengthError",
    "DeadlineError",
    "FieldViolation",
    "InternalError",
    "InvalidRequestError",
    "MessageAssembler",
    "ModelNotFoundError",
    "NoEligibleDeploymentError",
    "Pending",
    "PermissionDeniedError",
    "ProviderCredentialsError",
    "QuotaExceededError",
    "QuotaViolation",
    "RateLimitError",
    "SpeechStream",
    "Stream",
    "StreamInterruptedError",
    "TlsOptions",
    "TrunklineError",
    "UnavailableError",
    "text_of",
]
