"""A protoc plugin that emits gRPC service stubs through the generator inside grpcio-tools.

buf runs plugins as programs that read a CodeGeneratorRequest and write a
CodeGeneratorResponse. grpcio-tools carries the Python service generator only inside its
own protoc, so this plugin hands the request's descriptors to that protoc and returns the
files it wrote.
"""

import sys
import tempfile
from pathlib import Path

from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc


def main() -> int:
    request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    response = plugin_pb2.CodeGeneratorResponse(
        supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, "out")
        out.mkdir()
        descriptors = Path(scratch, "descriptors.binpb")
        descriptors.write_bytes(FileDescriptorSet(file=request.proto_file).SerializeToString())
        with_services = {f.name for f in request.proto_file if f.service}
        files = [name for name in request.file_to_generate if name in with_services]
        arguments = ["protoc", f"--descriptor_set_in={descriptors}", f"--grpc_python_out={out}"]
        if files and protoc.main([*arguments, *files]) != 0:
            response.error = "grpcio-tools could not generate the service stubs"
        for path in sorted(out.rglob("*.py")):
            response.file.add(name=str(path.relative_to(out)), content=path.read_text("utf-8"))
    sys.stdout.buffer.write(response.SerializeToString())
    return 0


if __name__ == "__main__":
    sys.exit(main())
