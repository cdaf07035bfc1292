"""The contract's descriptors: its files, methods and messages, and methods' paths over HTTP."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from google.api.annotations_pb2 import http as http_option
from google.api.http_pb2 import HttpRule as HttpRuleProto
from google.protobuf.descriptor import (
    Descriptor,
    FileDescriptor,
    MethodDescriptor,
    ServiceDescriptor,
)
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.rpc import error_details_pb2, status_pb2

from trunkline.admin.v1 import (
    audit_service_pb2,
    budget_service_pb2,
    credential_service_pb2,
    deployment_service_pb2,
    key_service_pb2,
    limit_service_pb2,
    policy_service_pb2,
    provider_service_pb2,
    route_service_pb2,
    tenant_service_pb2,
    usage_service_pb2,
)
from trunkline.v1 import error_reason_pb2, inference_service_pb2, schema_service_pb2

# The files that hold the services, and those that failures are made of, which no method names.
_DATA_PLANE = (inference_service_pb2, schema_service_pb2)
_CONTROL_PLANE = (
    audit_service_pb2,
    budget_service_pb2,
    credential_service_pb2,
    deployment_service_pb2,
    key_service_pb2,
    limit_service_pb2,
    policy_service_pb2,
    provider_service_pb2,
    route_service_pb2,
    tenant_service_pb2,
    usage_service_pb2,
)
_FAILURES = (error_reason_pb2, error_details_pb2, status_pb2)


@dataclass(frozen=True, slots=True)
class HttpRule:
    """One path of a method. `body` is the field that the body holds, `*` for the whole request,
    and empty for none."""

    verb: str
    path: str
    body: str


@cache
def services() -> Sequence[ServiceDescriptor]:
    """The services of the contract, those of the data plane first."""
    modules = (*_DATA_PLANE, *_CONTROL_PLANE)
    return [
        service for module in modules for service in module.DESCRIPTOR.services_by_name.values()
    ]


def methods() -> Iterator[MethodDescriptor]:
    """Every method of the contract."""
    for service in services():
        yield from service.methods


def http_rules(method: MethodDescriptor) -> Sequence[HttpRule]:
    """The paths of a method, the first the usual one."""
    options = method.GetOptions()
    first: HttpRuleProto = options.Extensions[http_option]  # type: ignore[index] # Its stub is plain.
    return [_rule(rule) for rule in (first, *first.additional_bindings)]


def _rule(rule: HttpRuleProto) -> HttpRule:
    verb = rule.WhichOneof("pattern")
    if verb is None or verb == "custom":
        raise ValueError(f"a method has no path over HTTP: {rule}")
    return HttpRule(verb.upper(), getattr(rule, verb), rule.body)


@cache
def descriptor_set() -> bytes:
    """A serialised google.protobuf.FileDescriptorSet of the whole contract and of what its
    failures hold, each file after those it imports."""
    return _described([module.DESCRIPTOR for module in (*_DATA_PLANE, *_CONTROL_PLANE, *_FAILURES)])


def descriptor_set_of(message: Descriptor) -> bytes:
    """The same of one message's file and what it imports."""
    return _described([message.file])


@cache
def messages() -> dict[str, Descriptor]:
    """Every message of the contract's own packages, by full name, nested ones left out."""
    found: dict[str, Descriptor] = {}
    for file in _with_imports([service.file for service in services()]):
        if file.package.startswith("trunkline."):
            for message in file.message_types_by_name.values():
                found[message.full_name] = message
    return found


def find_message(name: str) -> Descriptor | None:
    """A message by its full name, or by its own where it is one of trunkline.v1."""
    known = messages()
    return known.get(name) or known.get(f"trunkline.v1.{name}")


def _described(files: Sequence[FileDescriptor]) -> bytes:
    described = FileDescriptorSet()
    for file in _with_imports(files):
        proto = FileDescriptorProto()
        file.CopyToProto(proto)
        described.file.append(proto)
    return described.SerializeToString()


def _with_imports(files: Sequence[FileDescriptor]) -> Sequence[FileDescriptor]:
    ordered: dict[str, FileDescriptor] = {}

    def add(file: FileDescriptor) -> None:
        if file.name not in ordered:
            for imported in file.dependencies:
                add(imported)
            ordered[file.name] = file

    for file in files:
        add(file)
    return list(ordered.values())
