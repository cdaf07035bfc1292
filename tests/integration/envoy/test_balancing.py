"""Envoy before two replicas, one of which drains and is then gone."""

import asyncio
from contextlib import AsyncExitStack
from ipaddress import ip_address
from pathlib import Path

import grpc
from cryptography import x509

from tests.support.authority import Authority
from tests.support.envoy import Envoy
from tests.support.router import PATIENCE, Router, ask, openai_at, router
from trunkline.v1.inference_service_pb2_grpc import InferenceServiceStub
from trunkline_server.simulator.app import Simulator


def served(replica: Router) -> float:
    label = {"operation": "generate", "caller": "anonymous", "reason": "ok"}
    replica.worker._metrics.batches.flush()
    return replica.metric("trunkline_calls_total", **label)


async def test_a_replica_that_drains_and_goes_costs_no_call(envoy_home: Path) -> None:
    authority = Authority()
    leaf = authority.issue(x509.IPAddress(ip_address("127.0.0.1")))
    files = {"server.pem": leaf.certificate, "server.key": leaf.key}
    credentials = grpc.ssl_channel_credentials(authority.certificate)
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(Simulator(port=0))
        config = openai_at(f"{simulator.url}/openai").replace("gpt-test", "sim-small")
        stays = await stack.enter_async_context(router(config))
        leaving = AsyncExitStack()
        leaves = await leaving.enter_async_context(router(config))
        ports = [int(each.address.rpartition(":")[2]) for each in (stays, leaves)]
        envoy = Envoy(envoy_home, "envoy.yaml", {50051: ports}, files)
        stack.callback(envoy.close)
        # The replicas answer health checks meanwhile.
        envoy.launch()
        await asyncio.to_thread(envoy.wait)
        channel = await stack.enter_async_context(
            grpc.aio.secure_channel(envoy.address, credentials)
        )
        stub = InferenceServiceStub(channel)
        gone = asyncio.Event()
        made = 0

        async def calls() -> None:
            """Calls until the replica is gone, and ten more; one that fails raises."""
            nonlocal made
            more = 10
            while more:
                more -= gone.is_set()
                await stub.Generate(ask(), timeout=PATIENCE)
                made += 1

        calling = asyncio.gather(*(calls() for _ in range(4)))
        async with asyncio.timeout(PATIENCE):
            # By least of two neither is left out.
            while not served(leaves) or not served(stays):  # noqa: ASYNC110 - counters are asked
                await asyncio.sleep(0.01)
        # The time that Envoy has to notice, on a machine that is busy with other tests.
        await leaves.worker.drain(notice=3.0)
        gone.set()
        await calling
        assert made == served(stays) + served(leaves)
        await leaving.aclose()
        await stub.Generate(ask(), timeout=PATIENCE)
