"""The protocol breaks nobody: compared with the last release, and the comparison itself tried.

    proto/soardb_proto/v1 -> [test_compatible.py] -> compatible.py

The last release is the last tag that git knows of; in a copy without tags, or before the first
release, there is nothing to compare with, and the test says so.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2 as pb

from tests.proto.compatible import breaks

ROOT = Path(__file__).resolve().parents[2]


def protoc() -> Any:
    loader = SourceFileLoader("protoc_script", str(ROOT / ".ci/protoc"))
    module = module_from_spec(spec_from_loader("protoc_script", loader))  # type: ignore[arg-type]
    loader.exec_module(module)
    return module


def described(root: Path, out: Path) -> pb.FileDescriptorSet:
    more = ("--include_imports", f"--descriptor_set_out={out}")
    subprocess.run(protoc().command(out, root, *more), check=True)
    return pb.FileDescriptorSet.FromString(out.read_bytes())


@pytest.fixture(scope="module")
def now(tmp_path_factory: pytest.TempPathFactory) -> pb.FileDescriptorSet:
    return described(ROOT / "proto", tmp_path_factory.mktemp("proto") / "now")


def git(*arguments: str) -> str:
    run = subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
    )
    return run.stdout if run.returncode == 0 else ""


def test_nothing_breaks_since_the_last_release(now: pb.FileDescriptorSet, tmp_path: Path) -> None:
    """A client of the last release goes on working with this server."""
    tag = git("describe", "--tags", "--abbrev=0").strip()
    folder = "proto/soardb_proto/v1"
    files = git("ls-tree", "--name-only", tag, f"{folder}/").splitlines() if tag else []
    protos = [file for file in files if file.endswith(".proto")]
    if not protos:
        pytest.skip(f"no release with a protocol to compare with (last tag: {tag or 'none'})")
    target = tmp_path / "soardb_proto/v1"
    target.mkdir(parents=True)
    for file in protos:
        (target / Path(file).name).write_text(git("show", f"{tag}:{file}"), "utf-8")
    assert breaks(described(tmp_path, tmp_path / "old"), now) == []


def file_of(files: pb.FileDescriptorSet, name: str) -> pb.FileDescriptorProto:
    return next(f for f in files.file if f.name == f"soardb_proto/v1/{name}.proto")


def message_of(files: pb.FileDescriptorSet, file: str, name: str) -> pb.DescriptorProto:
    return next(m for m in file_of(files, file).message_type if m.name == name)


def drop_field(files: pb.FileDescriptorSet) -> None:
    del message_of(files, "points", "SearchRequest").field[0]


def renumber(files: pb.FileDescriptorSet) -> None:
    message_of(files, "points", "SearchRequest").field[0].number = 99


def rename(files: pb.FileDescriptorSet) -> None:
    message_of(files, "points", "SearchRequest").field[0].name = "other"


def retype(files: pb.FileDescriptorSet) -> None:
    message_of(files, "points", "WriteReply").field[0].type = pb.FieldDescriptorProto.TYPE_INT32


def make_repeated(files: pb.FileDescriptorSet) -> None:
    field = message_of(files, "points", "WriteReply").field[0]
    field.label = pb.FieldDescriptorProto.LABEL_REPEATED


def drop_message(files: pb.FileDescriptorSet) -> None:
    del file_of(files, "points").message_type[0]


def drop_method(files: pb.FileDescriptorSet) -> None:
    del file_of(files, "points").service[0].method[0]


def stream_method(files: pb.FileDescriptorSet) -> None:
    file_of(files, "points").service[0].method[0].server_streaming = True


def drop_service(files: pb.FileDescriptorSet) -> None:
    del file_of(files, "admin").service[0]


def drop_value(files: pb.FileDescriptorSet) -> None:
    del file_of(files, "types").enum_type[0].value[1]


def drop_file(files: pb.FileDescriptorSet) -> None:
    files.file.remove(file_of(files, "admin"))


BREAKS = [
    drop_field, renumber, rename, retype, make_repeated, drop_message, drop_method, stream_method,
    drop_service, drop_value, drop_file,
]  # fmt: skip


@pytest.mark.parametrize("change", BREAKS, ids=lambda change: change.__name__)
def test_each_kind_of_break_is_seen(
    now: pb.FileDescriptorSet, change: Callable[[pb.FileDescriptorSet], None]
) -> None:
    """A comparison that finds nothing would prove nothing."""
    changed = pb.FileDescriptorSet.FromString(now.SerializeToString())
    change(changed)
    assert breaks(now, changed)


def test_what_is_added_breaks_nothing(now: pb.FileDescriptorSet) -> None:
    """New fields, values, methods and messages are how a protocol grows."""
    changed = pb.FileDescriptorSet.FromString(now.SerializeToString())
    message_of(changed, "points", "WriteReply").field.add(name="more", number=50, type=4, label=1)
    file_of(changed, "types").enum_type[0].value.add(name="F64", number=9)
    file_of(changed, "points").message_type.add(name="New")
    method = file_of(changed, "points").service[0].method.add()
    method.name, method.input_type, method.output_type = "New", ".soardb.v1.New", ".soardb.v1.New"
    assert breaks(now, changed) == []


def test_a_field_may_go_when_its_number_is_reserved(now: pb.FileDescriptorSet) -> None:
    """So no later field takes the number and reads old bytes as its own."""
    changed = pb.FileDescriptorSet.FromString(now.SerializeToString())
    message = message_of(changed, "points", "WriteReply")
    number = message.field[1].number
    del message.field[1]
    message.reserved_range.add(start=number, end=number + 1)
    assert breaks(now, changed) == []
