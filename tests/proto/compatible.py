"""Compare two states of the protocol: what of the newer one would break users of the older.

    test_compatible.py -> [compatible.py]

A message on the wire knows its fields by number and type, and JSON and code know them by name, so
all three must stay. What goes must leave its number reserved.
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf import descriptor_pb2 as pb

__all__ = ["breaks"]


def breaks(old: pb.FileDescriptorSet, new: pb.FileDescriptorSet) -> list[str]:
    """What the newer state breaks, one line each; empty where it breaks nothing."""
    return sorted(_files(old, new))


def _ours(files: pb.FileDescriptorSet) -> dict[str, pb.FileDescriptorProto]:
    return {file.name: file for file in files.file if file.package.startswith("soardb.")}


def _files(old: pb.FileDescriptorSet, new: pb.FileDescriptorSet) -> Iterator[str]:
    before, after = _ours(old), _ours(new)
    for name, file in before.items():
        if name not in after:
            yield f"{name}: the file is gone"
            continue
        yield from _messages(file.package, file.message_type, after[name].message_type)
        yield from _enums(file.package, file.enum_type, after[name].enum_type)
        yield from _services(file, after[name])


def _messages(scope: str, old: object, new: object) -> Iterator[str]:
    after = {message.name: message for message in new}  # type: ignore[attr-defined]
    for message in old:  # type: ignore[attr-defined]
        name = f"{scope}.{message.name}"
        if message.name not in after:
            yield f"{name}: the message is gone"
            continue
        now = after[message.name]
        yield from _fields(name, message, now)
        yield from _messages(name, message.nested_type, now.nested_type)
        yield from _enums(name, message.enum_type, now.enum_type)


def _fields(name: str, old: pb.DescriptorProto, new: pb.DescriptorProto) -> Iterator[str]:
    after = {field.number: field for field in new.field}
    reserved = {n for span in new.reserved_range for n in range(span.start, span.end)}
    for field in old.field:
        where = f"{name}.{field.name} = {field.number}"
        now = after.get(field.number)
        if now is None:
            if field.number not in reserved:
                yield f"{where}: gone, and its number is not reserved"
            continue
        for part in ("name", "type", "label", "type_name", "proto3_optional"):
            if getattr(field, part) != getattr(now, part):
                yield f"{where}: another {part}"
        if _oneof(old, field) != _oneof(new, now):
            yield f"{where}: in another oneof"
    still = _spans(old) - _spans(new)
    for start, end in sorted(still):
        yield f"{name}: {start}..{end - 1} is no longer reserved"


def _spans(message: pb.DescriptorProto) -> set[tuple[int, int]]:
    return {(span.start, span.end) for span in message.reserved_range}


def _oneof(message: pb.DescriptorProto, field: pb.FieldDescriptorProto) -> str | None:
    return message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else None


def _enums(scope: str, old: object, new: object) -> Iterator[str]:
    after = {enum.name: enum for enum in new}  # type: ignore[attr-defined]
    for enum in old:  # type: ignore[attr-defined]
        name = f"{scope}.{enum.name}"
        if enum.name not in after:
            yield f"{name}: the enum is gone"
            continue
        values = {value.number: value.name for value in after[enum.name].value}
        for value in enum.value:
            if values.get(value.number) != value.name:
                yield f"{name}.{value.name} = {value.number}: gone or renamed"


def _services(old: pb.FileDescriptorProto, new: pb.FileDescriptorProto) -> Iterator[str]:
    after = {service.name: service for service in new.service}
    for service in old.service:
        name = f"{old.package}.{service.name}"
        if service.name not in after:
            yield f"{name}: the service is gone"
            continue
        methods = {method.name: method for method in after[service.name].method}
        for method in service.method:
            now = methods.get(method.name)
            if now is None:
                yield f"{name}.{method.name}: the method is gone"
                continue
            for part in ("input_type", "output_type", "client_streaming", "server_streaming"):
                if getattr(method, part) != getattr(now, part):
                    yield f"{name}.{method.name}: another {part}"
