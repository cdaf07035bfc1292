"""`trunkline health`: what a container or a script asks a router before it counts on it."""

import sys
from typing import cast

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def check_health(target: str, service: str, timeout: float, roots: bytes | None) -> int:
    """Asks grpc.health.v1 at `target`, for `timeout` seconds at most; prints the answer.

    `service` empty is the server as a whole. With `roots`, PEM certificates, over TLS. Returns 0
    for SERVING, 1 for every other answer and for none.
    """
    if roots is None:
        channel = grpc.insecure_channel(target)
    else:
        channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(roots))
    with channel:
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout)
        except grpc.RpcError as error:
            # What a call raises is the call itself; the class alone does not say so.
            call = cast(grpc.Call, error)
            print(f"trunkline: {target}: {call.code().name}: {call.details()}", file=sys.stderr)
            return 1
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    print(status)
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else 1
