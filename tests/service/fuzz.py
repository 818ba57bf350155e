"""Requests that nobody would send on purpose, to every method and every route, in one process.

    test_fuzz.py, `make fuzz` -> [fuzz.py] -> soardb_service.server (its door, without a wire)

Four kinds of requests are made from a source of random numbers: bytes, messages of the method's
own type with any fields, messages whose values are the hostile ones of HOSTILE_*, and good messages
with bits turned. Whatever comes, the answer is never INTERNAL and never late, and afterwards
count, scroll and export of every collection agree.

    python -P -m tests.service.fuzz --inputs 100000
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import structlog
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from soardb.errors import SoarError
from soardb.models.config import DecoderConfig
from soardb.models.decoder import Decoder
from soardb.models.registry import Registry
from soardb.models.tokens import Tokens
from soardb_proto import columns
from soardb_proto.v1 import types_pb2
from soardb_service.config import ServerConfig
from soardb_service.convert import Internal, status_of
from soardb_service.rest import app_of
from soardb_service.server import Server
from tests.service.running import METHODS

__all__ = ["Fuzz", "main"]

LATE_S = 20.0
CALL_S = 2.0
SCHEMA = {"tag": "keyword", "n": "int", "x": "float", "t": "datetime", "txt": "text", "g": "geo"}

NAMES = ["a", "a", "a", "a", "s", "s", "l", "alias", "tmp", "gone", "", "..", "a/b", "A", "\x00"]
MODELS = ["large", "large", "large", "small", "small", "none", "", "..", "a/b", "x.new"]
SANE: dict[str, list[Any]] = {
    "gamma": [0, 1, 5],
    "longest": [0, 1, 20],
    "length": [0, 1, 20],
    "prompt_tokens": [0, 1, 5],
    "passages": [0, 1, 10],
    "passage_length": [0, 1, 20],
    "temperature": [0.0, 0.5, 1.0, 1e-300, 1e300],
    "top_k": [1, 3, 10**6],
    "top_p": [0.5, 1.0, 1e-9],
    "seed": [0, 1, 2**63 - 1],
    "samples": [0, 1, 2],
    "searches": [0, 1, 10],
    "question": ["a", "x y", "\x00"],
    "text_field": ["", "txt", "none"],
    "prompt": ["a", "x y a b", "\x00", "\U0001f600"],
}
WORDS = [
    "",
    "x",
    "rrf",
    "weighted",
    "tag",
    "txt",
    "t",
    "int",
    "keyword",
    "op-1",
    "\u0000",
    "\ufeff",
]
HOSTILE_TEXTS = [
    "e\u0301", "\u00e9", "\u202eabc", "\U0001f600" * 200, "a" * 513, "a" * 70_000, "%2e%2e%2f",
    "' OR 1=1 --", "tag = 'x", "n BETWEEN 1", "NOT " * 500 + "n = 1", "(" * 5000,
    "tag IN (" + "'a'," * 3000 + "'b')", "n = 99999999999999999999999", "x = 1e999",
    "t > 'now'", "txt ~ '(a+)+$'",
    "n = 1 AND " * 2000 + "n = 2", "$$", "g WITHIN CIRCLE", "[]", "{}", "null", "NaN",
]  # fmt: skip
HOSTILE_INTS = [0, 1, 2, 3, 7, 100, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**64 - 1]
HOSTILE_FLOATS = [0.0, -0.0, 1.0, -1.0, 1e-45, 1e38, 3.4e38, 1e308, float("inf"), float("nan")]
HOSTILE_JSON = [
    b"", b"{", b"null", b"[]", b'"\\ud800"', b"[" * 100_000, b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    b'{"and": []}', b'{"field": "n", "op": "in", "value": []}', b'{"n": 1e999}', b'{"n": NaN}',
    b'{"field": "tag", "op": "eq", "value": {"a": 1}}', b'{"not": {"not": {"not": {}}}}',
    b'{"field": "n", "op": "gt", "value": 1}', b'{"field": "tag", "op": "eq", "value": "x"}',
    b'{"tag": "x", "n": 3}', b'{"n": 9223372036854775808}', b'{"t": "9999-99-99"}', b'{"g": [1]}',
    b'{"x": -0.0, "tag": null}', b'{"": {"": {"": []}}}', b"\xff\xfe", b'{"tag": "\x00"}',
]  # fmt: skip

_TOKENS = Tokens.trained(["a b", "x y z"], 257)
_INTEGERS = {FieldDescriptor.CPPTYPE_INT32: 31, FieldDescriptor.CPPTYPE_INT64: 63}
_UNSIGNED = {FieldDescriptor.CPPTYPE_UINT32: 32, FieldDescriptor.CPPTYPE_UINT64: 64}


class Fuzz:
    """A server without a wire, and what is thrown at it. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.statuses: Counter[str] = Counter()
        self.config = ServerConfig.of(
            [str(folder), "--memory-limit", str(2**29), "--rest-port", "-1", "--max-streams", "8"]
        )
        self.server = Server(self.config)
        self.methods = list(METHODS)
        self.routes: list[tuple[str, str]] = []
        app = app_of(
            self.config,
            self.server.door,
            self.server.passes,
            self.server._gate,
            self.server._health,
        )
        for path, ways in app.openapi()["paths"].items():
            self.routes += [(way.upper(), path) for way in ways]
        self._transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.prepare()

    def __enter__(self) -> Fuzz:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()

    def prepare(self) -> None:
        """The collections that requests are about, again where one was dropped."""
        database = self.server.database
        wanted = ("a", "s", "l", "alias")
        for clash in database.list_aliases():
            if clash != "alias" and clash.lower() in wanted:
                database.set_aliases({clash: None})
        for clash in database.list_collections():
            if clash == "alias" or (clash.lower() in wanted and clash not in wanted):
                database.drop_collection(clash)
        for name, metric in (("a", "cosine"), ("s", "dot"), ("l", "l2")):
            if name in database.list_collections():
                continue
            made = database.create_collection(name, 4, metric, schema=SCHEMA)
            rows = np.random.default_rng(1).standard_normal((50, 4)).astype(np.float32)
            ids: list[Any] = [f"p{i}" for i in range(50)] if name == "s" else list(range(50))
            made.upsert(ids, rows, [{"n": i, "tag": "xyz"[i % 3], "txt": "a b"} for i in range(50)])
        if "alias" not in database.list_aliases():
            database.set_alias("alias", "a")
        for extra in database.list_collections()[8:]:
            if extra not in ("a", "s", "l"):
                database.drop_collection(extra)
        registry = Registry(self.config.directory)
        for name in {"large", "small"} - set(registry.names()):
            size = DecoderConfig(len(_TOKENS), 16, 1, 2, context=64)
            registry.add_decoder(name, Decoder(size), _TOKENS)
        for old in sorted(self.config.directory.glob("snapshots/*"))[20:]:
            old.unlink(missing_ok=True)

    # ---- what is sent ----

    def request(self, source: random.Random) -> tuple[str, list[bytes]]:
        """(method, messages of a call); one message unless the method takes a stream."""
        method = source.choice(self.methods)
        rule = METHODS[method]
        count = source.randrange(5) if rule.method.client_streaming else 1
        return method, [self._data(source, method) for _ in range(count)]

    def _data(self, source: random.Random, method: str) -> bytes:
        kind = source.randrange(8)
        if kind == 0:
            return source.randbytes(source.choice([0, 1, 2, 10, 100, 1000]))
        message = self.message(source, METHODS[method].method.input_type, is_sane=kind > 3)
        data = bytearray(message.SerializeToString())
        if kind in (1, 7) and data:
            for _ in range(source.randrange(1, 4)):
                data[source.randrange(len(data))] ^= 1 << source.randrange(8)
        return bytes(data)

    def message(
        self, source: random.Random, kind: Any, *, is_sane: bool, depth: int = 0
    ) -> Message:
        """A message of a type. is_sane: columns that belong together, names that are there."""
        if is_sane and kind.full_name.endswith((".Matrix", ".Ids", ".Payloads")):
            return _column(source, kind.name)
        message = GetMessageClass(kind)()
        for field in kind.fields:
            likely = 0.9 if field.name in ("collection", "ids", "vectors") else 0.4
            if source.random() > likely or depth > 3:
                continue
            self._set(source, message, field, is_sane, depth)
        return message

    def _set(
        self, source: random.Random, message: Any, field: Any, is_sane: bool, depth: int
    ) -> None:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            is_number = field.message_type.fields_by_name["value"].cpp_type != (
                FieldDescriptor.CPPTYPE_STRING
            )
            for _ in range(source.randrange(3)):
                getattr(message, field.name)[source.choice(["alias", "z", ""])] = source.choice(
                    HOSTILE_FLOATS if is_number else NAMES
                )
            return
        if field.message_type is not None:
            if field.message_type.full_name.startswith("google."):
                return
            for _ in range(source.randrange(4) if field.is_repeated else 1):
                part = self.message(source, field.message_type, is_sane=is_sane, depth=depth + 1)
                if field.is_repeated:
                    getattr(message, field.name).append(part)
                else:
                    getattr(message, field.name).CopyFrom(part)
            return
        if field.is_repeated:
            getattr(message, field.name).extend(
                self._value(source, field, is_sane) for _ in range(source.choice([0, 1, 2, 5, 50]))
            )
        else:
            setattr(message, field.name, self._value(source, field, is_sane))

    def _value(self, source: random.Random, field: Any, is_sane: bool) -> Any:
        kind = field.cpp_type
        if field.name == "limit" and is_sane:
            return source.randrange(1, 60)
        if field.name in SANE and is_sane:
            return source.choice(SANE[field.name])
        if kind in _INTEGERS or kind in _UNSIGNED:
            bits = {**_INTEGERS, **_UNSIGNED}[kind]
            value = (
                source.choice(HOSTILE_INTS) if source.random() < 0.6 else source.getrandbits(bits)
            )
            return value % 2**bits
        if kind == FieldDescriptor.CPPTYPE_BOOL:
            return source.random() < 0.5
        if kind == FieldDescriptor.CPPTYPE_ENUM:
            return source.choice([0, 1, 2, 3, 4, 99, -1])
        if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
            return source.choice(HOSTILE_FLOATS) * source.choice([1, -1])
        if field.type == FieldDescriptor.TYPE_BYTES:
            return self._bytes(source)
        if field.name in ("collection", "source", "new_name"):
            return source.choice(NAMES)
        if field.name in ("model", "target", "draft", "draft_model", "embedder"):
            return source.choice(MODELS)
        return source.choice(HOSTILE_TEXTS if source.random() < 0.4 else WORDS)

    def _bytes(self, source: random.Random) -> bytes:
        if source.random() < 0.7:
            return source.choice(HOSTILE_JSON)
        return source.randbytes(source.choice([0, 1, 7, 8, 16, 64]))

    # ---- asking ----

    def ask(self, method: str, messages: list[bytes]) -> str:
        """The status of the answer. AssertionError where it is one of ours or late."""
        way = self.server.passes[METHODS[method].path]
        started = time.monotonic()
        try:
            if way.takes_stream or way.gives_stream:
                asked: Any = iter(messages) if way.takes_stream else messages[0]
                with contextlib.closing(
                    self.server.door.stream(way, asked, {}, CALL_S, lambda: False)
                ) as stream:
                    for reply in stream:
                        reply.SerializeToString()
            else:
                reply = self.server.door.unary(way, messages[0], {}, CALL_S, lambda: False)
                reply.SerializeToString()
            code = "OK"
        except Internal as error:
            raise AssertionError(f"INTERNAL from {method} {messages!r}"[:5000]) from error
        except SoarError as error:
            code = status_of(error)[0].name
        took = time.monotonic() - started
        assert took < LATE_S, f"{took:.1f} s for {method} {messages!r}"[:5000]
        self.statuses[code] += 1
        return code

    def ask_rest(self, requests: list[tuple[str, str, bytes]]) -> None:
        """Send to REST: (HTTP method, path, body). AssertionError for a 500."""

        async def send() -> None:
            async with httpx.AsyncClient(
                transport=self._transport, base_url="http://localhost"
            ) as link:
                for way, path, body in requests:
                    headers = {"content-type": "application/json", "x-timeout-s": str(CALL_S)}
                    answer = await link.request(way, path, content=body, headers=headers)
                    told = f"{way} {path} {body!r}"[:3000]
                    is_damage = answer.status_code == 500 and "DATA_LOSS" in answer.text
                    assert answer.status_code != 500 or is_damage, f"{told}: {answer.text}"
                    self.statuses[f"HTTP {answer.status_code}"] += 1

        asyncio.run(send())

    def rest_request(self, source: random.Random) -> tuple[str, str, bytes]:
        """(HTTP method, path, body) of a route."""
        way, path = source.choice(self.routes)
        filled = path.format(
            collection=source.choice(["a", "s", "l", "alias", "gone", "%2e%2e", "tmp"]),
            name="op-0123456789abcdef",
            snapshot="s-0123456789abcdef",
            model=source.choice(MODELS),
        )
        if source.random() < 0.15:
            return way, filled, source.choice(HOSTILE_JSON)
        body = {}
        for name in _REST_FIELDS:
            if source.random() < 0.25:
                body[name] = source.choice(
                    _REST_VALUES[name] if source.random() < 0.8 else _REST_ANY
                )
        text = json.dumps(body)
        if source.random() < 0.1:
            text = text.replace(source.choice('{}[]:,"'), source.choice('{}[]:,"'), 1)
        return way, filled, text.encode("utf-8", "surrogatepass")

    # ---- what must hold afterwards ----

    def check(self) -> dict[str, int]:
        """Points of each collection; AssertionError where ways of counting them disagree."""
        database = self.server.database
        for operation in list(self.server._operations._all.values()):
            assert operation.error is None or operation.error.code != 13, operation  # INTERNAL
        counts = {}
        for name in database.list_collections():
            collection = database.get_collection(name)
            with contextlib.suppress(SoarError):  # of a write that was only queued
                collection.flush()
            ids: list[Any] = []
            token = None
            while True:
                page = collection.scroll(page_size=1000, page_token=token)
                ids += [point.id for point in page.points]
                token = page.next_page_token
                if token is None:
                    break
            exported = [point_id for batch in collection.batches(100) for point_id in batch.ids]
            assert collection.count() == len(ids) == len(set(ids)) == len(exported), name
            assert set(ids) == set(exported), name
            counts[name] = len(ids)
        return counts


def _column(source: random.Random, kind: str) -> Message:
    """A column of three rows of four numbers, with values that may be hostile."""
    n = source.choice([1, 3, 3, 3])
    if kind == "Payloads":
        return types_pb2.Payloads(json=[source.choice(HOSTILE_JSON[-10:]) for _ in range(n)])
    if kind == "Ids":
        if source.random() < 0.5:
            ends = [0, 1, 2, 3, 49, -1, 2**63 - 1, -(2**63)]
            return columns.pack_ids(np.array([source.choice(ends) for _ in range(n)], np.int64))
        texts = ["p1", "p2", "p3", "e\u0301", "\u00e9", "", "a" * 512, "a" * 513, "\x00"]
        return types_pb2.Ids(
            strings=types_pb2.Strings(values=[source.choice(texts) for _ in range(n)])
        )
    dtype: Any = source.choice([np.float32, np.float32, np.float16])
    rows = np.array([[source.gauss(0, 1) for _ in range(4)] for _ in range(n)])
    if source.random() < 0.3:
        rows[source.randrange(n), source.randrange(4)] = source.choice(HOSTILE_FLOATS)
    with np.errstate(over="ignore"):
        packed = columns.pack_matrix(rows.astype(dtype))
    if source.random() < 0.2:
        packed.count = source.choice(HOSTILE_INTS) % 2**32
        packed.dim = source.choice(HOSTILE_INTS) % 2**32
    return packed


_REST_VALUES: dict[str, list[Any]] = {
    "ids": [[1], [1, 2], ["p1"], [], [2**63], [-(2**63)], [1, "a"], [True], [1.5], ["\u0000"]],
    "vectors": [
        [[1, 2, 3, 4]],
        [[1, 2]],
        [],
        [[]],
        [[1e39, 0, 0, 1]],
        [[float("nan")] * 4],
        [[1], []],
    ],
    "vector": [[1, 2, 3, 4], [3e38] * 4, [], [float("inf")] * 4, [0, 0, 0, 0]],
    "vectors_b64": ["AACAPwAAAEAAAEBAAACAQA==", "", "!", "AAAA"],
    "dim": [4, 0, -1, 2**31, 2**40],
    "payloads": [[{"n": 1}], [None], [{"n": 10**30}], [{"t": "x"}], [{"a": {"b": [1]}}], []],
    "payload": [{}, {"n": None}, {"tag": "x"}, {"x": 1e308}, {"g": {"lat": 1, "lon": 999}}],
    "filter": ["n > 3", "n > ", {"field": "n", "op": "gt", "value": 3}, {}, {"and": []}, ""],
    "ack": ["fsync", "memory", "logged"],
    "mode": ["upsert", "insert"],
    "request_id": ["r1", "", "a" * 1000],
    "id": [1, "p1", 2**63, -1, True],
    "text": ["a", "", "a b" * 1000, '"', "a OR b"],
    "text_fields": [["txt"], ["nope"], []],
    "weights": [[1, 1], [0, 0], [-1, 1], [1e308, 1e308], [float("nan"), 1]],
    "limit": [1, 10, 0, -1, 2**32, 10_000],
    "nprobe": [1, 0, 2**32 - 1, -1],
    "rerank": [1, 0, 2**32 - 1],
    "score_threshold": [0.5, 1e39, float("nan"), -1e308],
    "group_by": ["tag", "nope", ""],
    "group_size": [1, 0, 2**32 - 1],
    "min_seq": [0, 1, 2**63, 2**64],
    "page_size": [1, 100, 0, -1, 10**6],
    "page_token": ["", "x", "AAAA", "a" * 10_000],
    "with_vectors": [True, False],
    "with_payload": [True, False],
    "explain": [True],
    "exact": [True],
    "collection": ["tmp", "a", "..", ""],
    "metric": ["cosine", "dot", "l2"],
    "schema": [{"n": "int"}, {"n": "nope"}, {"": "int"}, {"n" * 1000: "int"}],
    "index": [
        {"nlist": 4},
        {"nlist": -1},
        {"nope": 1},
        {"nlist": "x"},
        {"soar_lambda": float("nan")},
    ],
    "ttl": ["n", "t", ""],
    "new_name": ["tmp", "a", "..", "x" * 200],
    "aliases": [{"alias": "a"}, {"alias": None}, {"z": "gone"}, {"..": "a"}, {"a": "a"}],
    "k": [1, 10, 0, 10**9],
    "queries": [1, 5, 0, 10**9],
}
_REST_FIELDS = list(_REST_VALUES)
_REST_ANY: list[Any] = [None, 0, -1, 1e308, True, "", "\ud800", [], {}, [[]], [None], {"a": [{}]}]


def _said(process: psutil.Process) -> str:
    return f"RSS {process.memory_info().rss / 2**20:.0f} MiB, {process.num_threads()} threads"


def _long(fuzz: Fuzz, inputs: int, seed: int) -> Iterator[str]:
    """Throw so many inputs at it; a line of progress now and then."""
    source = random.Random(seed)
    process = psutil.Process()
    step = max(1, inputs // 20)
    yield f"{0:>9,} inputs  {_said(process)}"
    for i in range(inputs):
        if i % 10 == 9:
            fuzz.ask_rest([fuzz.rest_request(source) for _ in range(1)])
        else:
            fuzz.ask(*fuzz.request(source))
        if i % 200 == 0:
            fuzz.prepare()
        if (i + 1) % step == 0:
            fuzz.check()
            yield f"{i + 1:>9,} inputs  {_said(process)}"


def main() -> None:
    """The long form: counts by status, and the memory at both ends."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    quiet()
    with tempfile.TemporaryDirectory() as folder, Fuzz(Path(folder) / "db") as fuzz:
        started = time.monotonic()
        for line in _long(fuzz, given.inputs, given.seed):
            print(line, flush=True)
        counts = fuzz.check()
        print(f"{time.monotonic() - started:.0f} s; points of each collection: {counts}")
        for status, count in sorted(fuzz.statuses.items(), key=lambda item: -item[1]):
            print(f"{count:>9,}  {status}")


def quiet() -> None:
    """Only errors are logged; by the thousand these are none."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    logging.getLogger("soardb").setLevel(logging.ERROR)


if __name__ == "__main__":
    main()
