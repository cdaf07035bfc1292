"""The list of models."""

from collections.abc import Iterable

from trunkline import v1
from trunkline_server.openai_face.reading import Json


def model_list(models: Iterable[v1.PublicModel]) -> Json:
    """OpenAI's list of these models."""
    return {"object": "list", "data": [model(each) for each in models]}


def model(known: v1.PublicModel) -> Json:
    """OpenAI's description of a model. The router does not know when it was made, and calls its
    first provider its owner."""
    providers = [deployment.provider for deployment in known.deployments]
    return {
        "id": known.name,
        "object": "model",
        "created": 0,
        "owned_by": providers[0] if providers else "trunkline",
    }
