"""Whatever a configuration file may hold of resources, the control plane can show."""

import re
from pathlib import Path

import pytest

from trunkline_server.rpc.admin.documents import from_document, to_document
from trunkline_server.rpc.admin.kinds import KINDS, Kind
from trunkline_server.settings import STORED_KINDS, written_documents

EXAMPLE = Path(__file__).parents[3] / "deploy" / "trunkline.example.yaml"
# The example with every setting that it leaves out.
FULL = re.sub(r"^( *)#(?=[a-z-])", r"\1", EXAMPLE.read_text("utf-8"), flags=re.MULTILINE)


def test_the_store_may_own_every_kind_of_the_control_plane() -> None:
    assert set(STORED_KINDS) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_every_resource_of_the_example_is_shown(kind: Kind) -> None:
    documents = written_documents(FULL)[kind.name]
    assert documents, "the example shows none"
    for name, document in documents.items():
        message = from_document(kind.message, document)
        shown = to_document(message)
        # All that requests may set is told; a key's hash is nobody's to read.
        fields = kind.message.DESCRIPTOR.fields_by_name
        given = {field for field, value in document.items() if value not in (None, 0, "")}
        assert given - {"hash", "name"} <= set(shown) & set(fields), name
