"""A protoc plugin that writes each contract package's __init__.py.

The file re-exports every top-level message, enum and enum value of the package, so that
`from trunkline import v1` offers exactly what the contract holds.
"""

import sys
from collections import defaultdict
from pathlib import PurePosixPath

from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto


def exported_names(file: FileDescriptorProto) -> list[str]:
    """The names that the generated module of a file defines, sorted."""
    names = [message.name for message in file.message_type]
    for enum in file.enum_type:
        names += [enum.name, *(value.name for value in enum.value)]
    return sorted(names)


def render(package: str, files: list[FileDescriptorProto]) -> str:
    """The text of one package's __init__.py."""
    lines = [
        f'"""Every message, enum and enum value of package {package}. Generated; do not edit."""',
        "",
    ]
    exported: list[str] = []
    for file in sorted(files, key=lambda file: file.name):
        names = exported_names(file)
        if not names:
            continue
        exported += names
        lines.append(f"from {package}.{PurePosixPath(file.name).stem}_pb2 import (")
        lines += [f"    {name}," for name in names]
        lines.append(")")
    lines += ["", "__all__ = ["]
    lines += [f'    "{name}",' for name in sorted(exported)]
    lines += ["]", ""]
    return "\n".join(lines)


def main() -> int:
    request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    response = plugin_pb2.CodeGeneratorResponse(
        supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    wanted = set(request.file_to_generate)
    packages: defaultdict[str, list[FileDescriptorProto]] = defaultdict(list)
    for file in request.proto_file:
        if file.name in wanted:
            packages[file.package].append(file)
    for package, files in sorted(packages.items()):
        path = PurePosixPath(*package.split("."), "__init__.py")
        response.file.add(name=str(path), content=render(package, files))
    sys.stdout.buffer.write(response.SerializeToString())
    return 0


if __name__ == "__main__":
    sys.exit(main())
