"""A small world for engine tests: three deployments at three providers, on virtual time."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from tests.support.plain_dialect import Answer, PlainCodec, ScriptedClient
from tests.support.virtual_time import VirtualClock
from trunkline import v1
from trunkline_server.engine.attempt import Services
from trunkline_server.engine.budget import RetryBudget
from trunkline_server.engine.call import Call
from trunkline_server.engine.engine import Engine
from trunkline_server.engine.ports import Credential
from trunkline_server.engine.table import Endpoint, FixedCredential, Table
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.identity.principal import ANONYMOUS
from trunkline_server.routing.health import HealthTable
from trunkline_server.routing.pricing import Price
from trunkline_server.routing.rates import Rates
from trunkline_server.routing.snapshot import AttemptPolicy, Deployment, Route, Snapshot

PROVIDERS = ("alpha", "beta", "gamma")
SECRET = "top-secret-credential"


class Recorder:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.started: list[Call] = []
        self.attempts: list[tuple[str, TrunklineError | None]] = []
        self.ended: list[tuple[Call, TrunklineError | None]] = []

    def call_started(self, call: Call) -> None:
        self.started.append(call)

    def attempt_ended(
        self, call: Call, target: Deployment, attempt: v1.Attempt, error: TrunklineError | None
    ) -> None:
        assert attempt.outcome
        self.attempts.append((target.name, error))

    def call_ended(self, call: Call, error: TrunklineError | None) -> None:
        self.ended.append((call, error))


@dataclass
class World:
    """An engine over scripted providers. Build it inside a running virtual loop."""

    script: Mapping[str, Sequence[Answer]]
    policy: AttemptPolicy = field(default_factory=lambda: AttemptPolicy(retries=0))
    budget: RetryBudget = field(default_factory=RetryBudget)
    flags: Mapping[str, Mapping[str, str | int | bool]] = field(default_factory=dict)
    priced: bool = True
    # None: one that never changes.
    credential: Credential | None = None

    def __post_init__(self) -> None:
        price = Price.flat(Rates(input=Decimal(2), output=Decimal(8))) if self.priced else None
        self.deployments = tuple(
            Deployment(
                slot=slot,
                name=f"{provider}-large",
                provider=provider,
                provider_model="large",
                model="large",
                capabilities=frozenset({"chat", "embedding", "streaming"}),
                price=price,
                priority=slot,
            )
            for slot, provider in enumerate(PROVIDERS)
        )
        route = Route("large", v1.STRATEGY_PRIORITY, self.deployments, attempts=self.policy)
        self.snapshot = Snapshot("v-test", self.deployments, {"large": route}, {}, {}, 0.0)
        self.health = HealthTable([deployment.name for deployment in self.deployments])
        endpoints = {
            provider: Endpoint(
                provider,
                PlainCodec(),
                f"http://{provider}",
                self.credential
                or FixedCredential((("authorization", f"Bearer {SECRET}"),), (SECRET,)),
            )
            for provider in PROVIDERS
        }
        self.http = ScriptedClient(self.script)
        self.observer = Recorder()
        self.clock = VirtualClock()
        self.table = Table(
            self.snapshot, endpoints, self.health, lambda provider, _: self.flags.get(provider, {})
        )
        self.rng = random.Random(7)
        services = Services(self.http, self.clock, self.observer, self.budget, self.rng)
        self.engine = Engine(services, self.table)

    def call(self, request: v1.GenerateRequest | v1.EmbedRequest, patience: float = 60.0) -> Call:
        now = self.clock.monotonic()
        operation = "embed" if isinstance(request, v1.EmbedRequest) else "generate"
        return Call(operation, request, "id-1", ANONYMOUS, now, now + patience)

    async def generate(self, patience: float = 60.0, **fields: object) -> v1.GenerateResponse:
        request = ask(**fields)
        response = await self.engine.generate(self.call(request, patience), request)
        assert isinstance(response, v1.GenerateResponse)
        return response

    async def stream(
        self, patience: float = 60.0, **fields: object
    ) -> list[v1.StreamGenerateResponse]:
        """The events sent; a failure is raised with them in its `events` attribute."""
        request = ask(**fields)
        events: list[v1.StreamGenerateResponse] = []

        async def send(event: v1.StreamGenerateResponse | bytes) -> None:
            events.append(event_of(event))

        self.events = events
        await self.engine.stream_generate(self.call(request, patience), request, send)
        return events


def ask(**fields: object) -> v1.GenerateRequest:
    """A small request for the model "large"."""
    request = v1.GenerateRequest(
        model="large", messages=[v1.Message(role=v1.ROLE_USER, parts=[v1.Part(text="hi there")])]
    )
    request.MergeFrom(v1.GenerateRequest(**fields))  # type: ignore[arg-type]  # fields by name
    return request


def event_of(event: v1.StreamGenerateResponse | bytes) -> v1.StreamGenerateResponse:
    """An event as it was sent, serialised or not."""
    return v1.StreamGenerateResponse.FromString(event) if isinstance(event, bytes) else event
