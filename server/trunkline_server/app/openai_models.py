"""The public models as the OpenAI-compatible face lists them."""

from collections.abc import Sequence

from trunkline import v1
from trunkline_server.engine.engine import Engine
from trunkline_server.openai_face.context import HttpContext
from trunkline_server.routing.snapshot import Route
from trunkline_server.rpc.inference import InferenceServicer


class OpenAIModels:
    """An openai_face.ports.Models over the table in force, for who may call ListModels."""

    def __init__(self, engine: Engine, servicer: InferenceServicer) -> None:
        self._engine = engine
        self._servicer = servicer

    async def models(self, context: HttpContext, /) -> Sequence[v1.PublicModel]:
        """As Models.models."""
        caller = await self._servicer.admit("list_models", context)
        table = self._engine.table
        permitted = table.permitted_models(caller, "")
        return [
            _public(name, route)
            for name, route in sorted(table.snapshot.models.items())
            if permitted is None or name in permitted
        ]


def _public(name: str, route: Route) -> v1.PublicModel:
    members = [member for member in route.members if member.enabled]
    return v1.PublicModel(
        name=name,
        deployments=[
            v1.ModelDeployment(name=member.name, provider=member.provider) for member in members
        ],
    )
