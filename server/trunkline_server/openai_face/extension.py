"""What the contract has and OpenAI does not: the body's field `trunkline`, by its own names."""

from collections.abc import Sequence

from google.protobuf.json_format import ParseDict

from trunkline import v1
from trunkline_server.contract.payload import findings
from trunkline_server.errors import Violation, invalid_fields
from trunkline_server.openai_face.reading import Fields

# Those that every request has.
COMMON_FIELDS = (
    "requirements",
    "routing",
    "cache",
    "context",
    "request_id",
    "provider_options",
)
_MAX_VIOLATIONS = 20


def read_extension(
    body: Fields, request: v1.GenerateRequest | v1.EmbedRequest, known: Sequence[str]
) -> None:
    """Sets the fields of a request that the extension has, of those that are `known`. Raises
    INVALID_REQUEST."""
    fields = body.object("trunkline")
    if fields is None:
        return
    fields.only(*known)
    given = {name: fields.raw(name) for name in fields.names()}
    wrong = [
        Violation(fields.at(found.field), found.description)
        for found in findings(given, request.DESCRIPTOR)
    ]
    if wrong:
        raise invalid_fields(wrong[:_MAX_VIOLATIONS])
    ParseDict(given, request)
