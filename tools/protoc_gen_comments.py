"""A protoc plugin that writes the contract's comments to comments.json, by full names.

The generated Python stubs hold no comments; the documents that the router makes of its contract
need them. A name without a comment, which buf's lint refuses too, is an error.
"""

import json
import sys
from collections.abc import Iterator

from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
)

Path = tuple[int, ...]

# Numbers of fields in descriptor.proto, of which paths of source code are made.
_FILE = FileDescriptorProto.DESCRIPTOR.fields_by_name
_MESSAGE = DescriptorProto.DESCRIPTOR.fields_by_name


def names(file: FileDescriptorProto) -> Iterator[tuple[Path, str]]:
    """The path of each thing of a file that has a comment, and its full name."""
    for i, message in enumerate(file.message_type):
        yield from _message(
            message, (_FILE["message_type"].number, i), f"{file.package}.{message.name}"
        )
    for i, enum in enumerate(file.enum_type):
        yield from _enum(enum, (_FILE["enum_type"].number, i), f"{file.package}.{enum.name}")
    for i, service in enumerate(file.service):
        path, name = (_FILE["service"].number, i), f"{file.package}.{service.name}"
        yield path, name
        for j, method in enumerate(service.method):
            yield (*path, 2, j), f"{name}.{method.name}"


def _message(message: DescriptorProto, path: Path, name: str) -> Iterator[tuple[Path, str]]:
    if message.options.map_entry:
        return
    yield path, name
    for i, field in enumerate(message.field):
        yield (*path, _MESSAGE["field"].number, i), f"{name}.{field.name}"
    for i, oneof in enumerate(message.oneof_decl):
        # Those with an underscore are made for optional fields.
        if not oneof.name.startswith("_"):
            yield (*path, _MESSAGE["oneof_decl"].number, i), f"{name}.{oneof.name}"
    for i, nested in enumerate(message.nested_type):
        yield from _message(
            nested, (*path, _MESSAGE["nested_type"].number, i), f"{name}.{nested.name}"
        )
    for i, enum in enumerate(message.enum_type):
        yield from _enum(enum, (*path, _MESSAGE["enum_type"].number, i), f"{name}.{enum.name}")


def _enum(enum: EnumDescriptorProto, path: Path, name: str) -> Iterator[tuple[Path, str]]:
    yield path, name
    for i, value in enumerate(enum.value):
        yield (*path, 2, i), f"{name}.{value.name}"


def comments(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    """Full names and comments. Raises ValueError for a name without one."""
    located = {tuple(each.path): each for each in file.source_code_info.location}
    for path, name in names(file):
        text = located[path].leading_comments if path in located else ""
        if not text.strip():
            raise ValueError(f"{file.name}: {name} has no comment")
        yield name, "\n".join(line.strip() for line in text.strip().splitlines())


def main() -> int:
    request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    response = plugin_pb2.CodeGeneratorResponse(
        supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    wanted = set(request.file_to_generate)
    try:
        found = dict(
            pair for file in request.proto_file if file.name in wanted for pair in comments(file)
        )
    except ValueError as error:
        response.error = str(error)
    else:
        # One line each, in order, so that changes side by side are merged.
        text = json.dumps(found, indent=0, sort_keys=True, ensure_ascii=False)
        response.file.add(name="comments.json", content=text + "\n")
    sys.stdout.buffer.write(response.SerializeToString())
    return 0


if __name__ == "__main__":
    sys.exit(main())
