"""Switches of gRPC core, set before anything imports grpc, which reads them once.

The event engine's own listener costs some 15 % more CPU per call under grpc.aio than the
poller's (DECISIONS.md has the figures). The experiment's name is gRPC's own; should a release
drop it, gRPC logs that it does not know it and nothing else changes.
"""

import os


def tune_grpc() -> None:
    """Sets what the operator has not set."""
    os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
