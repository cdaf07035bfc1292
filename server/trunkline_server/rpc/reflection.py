"""gRPC server reflection that also finds methods.

The reflection protocol lets clients ask for the file of any symbol, methods included, and ghz
does. protobuf's descriptor pool (upb) knows every symbol but methods, so their names are looked
up by way of their service.
"""

from collections.abc import Iterable
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_reflection.v1alpha import reflection

SERVICE_NAME: str = reflection.SERVICE_NAME


class _PoolWithMethods:
    """The default descriptor pool, as the reflection servicer uses it."""

    def __init__(self) -> None:
        self._pool = descriptor_pool.Default()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802 - its name
        """The file that defines a symbol. Raises KeyError."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service, _, method = symbol.rpartition(".")
            found = self._pool.FindServiceByName(service)
            if method not in found.methods_by_name:
                raise
            return found.file


def enable_reflection(services: Iterable[str], server: Any) -> None:
    """Lets callers of `server` ask what these services look like."""
    reflection.enable_server_reflection((*services, SERVICE_NAME), server, _PoolWithMethods())
