"""Whether a call is one that botocore would have made, by a published model of the service."""

import base64
import json
from typing import Any
from urllib.parse import unquote

from botocore import session
from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel, Shape
from botocore.serialize import create_serializer
from botocore.validate import ParamValidator

from trunkline_server.providers.codec import WireRequest

_OPERATIONS = {
    "converse": "Converse",
    "converse-stream": "ConverseStream",
    "count-tokens": "CountTokens",
    "invoke": "InvokeModel",
}


def packaged_model() -> ServiceModel:
    """The model that comes with botocore."""
    loader: Loader = session.get_session().get_component("data_loader")
    return ServiceModel(loader.load_service_model("bedrock-runtime", "service-2"))


def check_call(call: WireRequest, model: ServiceModel) -> None:
    """Asserts that the call's body and path are what botocore makes of the same parameters, and
    that the model allows each of these."""
    prefix, encoded, operation = call.path.strip("/").split("/")
    assert prefix == "model"
    operation_model = model.operation_model(_OPERATIONS[operation])
    body = json.loads(call.body)
    parameters: dict[str, Any] = {"modelId": unquote(encoded)}
    if operation == "invoke":
        parameters["body"] = call.body
    else:
        parameters |= _parameters(body, operation_model.input_shape)
    report = ParamValidator().validate(parameters, operation_model.input_shape)
    assert not report.has_errors(), report.generate_report()
    made = _serialized(parameters, operation_model)
    assert made["url_path"] == call.path
    assert made["method"] == call.method
    assert json.loads(made["body"]) == body


def _serialized(parameters: dict[str, Any], operation: OperationModel) -> dict[str, Any]:
    made: dict[str, Any] = create_serializer("rest-json").serialize_to_request(
        parameters, operation
    )
    return made


def _parameters(value: Any, shape: Shape) -> Any:
    """A body as a caller of botocore would have given it: blobs as bytes. What botocore does not
    check itself is asserted here: the choices and the lengths."""
    kind = shape.type_name
    if kind == "structure":
        if getattr(shape, "is_document_type", False):
            return value
        members = shape.members
        assert value.keys() <= members.keys(), f"{shape.name}: {value.keys() - members.keys()}"
        return {name: _parameters(value[name], members[name]) for name in value}
    if kind == "list":
        return [_parameters(item, shape.member) for item in value]
    if kind == "map":
        return {key: _parameters(item, shape.value) for key, item in value.items()}
    if kind == "blob":
        return base64.b64decode(value, validate=True)
    if kind == "string":
        assert not shape.enum or value in shape.enum, f"{shape.name}: {value}"
        longest = shape.metadata.get("max", len(value))
        assert len(value) <= longest, f"{shape.name}: {value}"
    return value
