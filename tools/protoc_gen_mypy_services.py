"""A protoc plugin that types the service stubs, for files that define services only.

mypy-protobuf's own plugin also writes an empty stub for every file without a service. This
one leaves those files out of the request and lets that plugin do the rest.
"""

import shutil
import subprocess
import sys

from google.protobuf.compiler import plugin_pb2

PLUGIN = "protoc-gen-mypy_grpc"


def main() -> int:
    request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    with_services = {file.name for file in request.proto_file if file.service}
    kept = [name for name in request.file_to_generate if name in with_services]
    del request.file_to_generate[:]
    request.file_to_generate.extend(kept)
    plugin = shutil.which(PLUGIN)
    if plugin is None:
        print(f"{PLUGIN} is not on PATH", file=sys.stderr)
        return 1
    return subprocess.run([plugin], input=request.SerializeToString(), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
