"""Who may call what: every method and every route against every kind of caller.

    soardb_service/access.py, OpenAPI -> [test_access.py] -> a running server

What is expected of a method follows from its rule in the .proto file, so a method that is added
there is tested here unasked; a route that is added to REST must be entered in ROUTES.
"""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from soardb_proto import columns
from soardb_proto.v1 import access_pb2, admin_pb2, collections_pb2, points_pb2
from soardb_service import access
from soardb_service.access import Rule
from soardb_service.rpc import handlers_of
from tests.service.running import METHODS, Running, added_key, metadata_of, outcome

READ, WRITE, ADMIN = access_pb2.READ, access_pb2.WRITE, access_pb2.ADMIN

# Beyond their rule: they are about every collection at once.
NEED_ALL = {
    "Admin/Stats",
    "Models/Upload",
    "Models/Delete",
    "Models/Pair",
    "Models/Evaluate",
}

# (scope of the key, the pattern it is for, the collection it asks about, whether that is covered)
CALLERS = {
    "read": (READ, "words*", "words", True),
    "write": (WRITE, "words*", "words", True),
    "admin of it": (ADMIN, "words*", "words", True),
    "admin of all": (ADMIN, "*", "words", True),
    "read of all": (READ, "*", "words", True),
    "admin of another": (ADMIN, "other", "words", False),
    "admin of a longer name": (ADMIN, "words-", "words", False),
    "admin in other case": (ADMIN, "WORDS", "words", False),
    "admin of an alias of another's": (ADMIN, "mine*", "mine-too", False),
}

# Route of REST -> the method it stands for.
ROUTES = {
    "POST /v1/collections/{collection}/upsert": "Points/Upsert",
    "POST /v1/collections/{collection}/flush": "Points/Flush",
    "POST /v1/collections/{collection}/delete": "Points/Delete",
    "POST /v1/collections/{collection}/update_payload": "Points/UpdatePayload",
    "POST /v1/collections/{collection}/get": "Points/Get",
    "POST /v1/collections/{collection}/search": "Points/Search",
    "POST /v1/collections/{collection}/scroll": "Points/Scroll",
    "POST /v1/collections/{collection}/count": "Points/Count",
    "GET /v1/collections/{collection}/export": "Points/Export",
    "GET /v1/collections": "Collections/List",
    "POST /v1/collections": "Collections/Create",
    "GET /v1/collections/{collection}": "Collections/Get",
    "DELETE /v1/collections/{collection}": "Collections/Drop",
    "POST /v1/collections/{collection}/rename": "Collections/Rename",
    "POST /v1/aliases": "Collections/SetAliases",
    "GET /v1/collections/{collection}/index": "Indexes/Status",
    "POST /v1/collections/{collection}/index/build": "Indexes/Build",
    "POST /v1/collections/{collection}/index/compact": "Indexes/Compact",
    "POST /v1/collections/{collection}/index/tune": "Indexes/Tune",
    "GET /v1/collections/{collection}/operations": "Operations/List",
    "GET /v1/collections/{collection}/operations/{name}": "Operations/Wait",
    "DELETE /v1/collections/{collection}/operations/{name}": "Operations/Cancel",
    "POST /v1/collections/{collection}/snapshots": "Snapshots/Create",
    "GET /v1/collections/{collection}/snapshots": "Snapshots/List",
    "DELETE /v1/collections/{collection}/snapshots/{snapshot}": "Snapshots/Delete",
    "POST /v1/collections/{collection}/snapshots/{snapshot}/restore": "Snapshots/Restore",
    "GET /v1/collections/{collection}/snapshots/{snapshot}": "Snapshots/Download",
    "GET /v1/models": "Models/List",
    "GET /v1/models/{model}": "Models/Get",
    "DELETE /v1/models/{model}": "Models/Delete",
    "POST /v1/models/{model}/pairs": "Models/Pair",
    "POST /v1/models/{model}/generate": "Models/Generate",
    "POST /v1/collections/{collection}/ask": "Agent/Ask",
    "GET /v1/info": "Admin/ServerInfo",
    "GET /v1/stats": "Admin/Stats",
}
WITHOUT_KEY = {"GET /healthz"}

BODIES: dict[str, dict[str, Any]] = {
    "Points/Upsert": {"ids": [1], "vectors": [[1, 2]]},
    "Points/Delete": {"ids": [1]},
    "Points/UpdatePayload": {"ids": [1], "payload": {}},
    "Points/Get": {"ids": [1]},
    "Points/Search": {"vector": [1, 2]},
    "Collections/Create": {"collection": "words", "dim": 0},
    "Collections/Rename": {"new_name": "words-2"},
    "Collections/SetAliases": {"aliases": {}},
    "Agent/Ask": {"question": "a", "model": "large"},
    "Models/Pair": {"draft": "small"},
    "Models/Generate": {"prompt": "a"},
    "Snapshots/Restore": {"new_name": "words-2"},
}


def request_of(rule: Rule, name: str) -> Message:
    """A request about a collection that can do no harm: the tests' `words` is not there."""
    message = GetMessageClass(rule.method.input_type)()
    for field in ("collection", "source", "new_name"):
        if field in rule.method.input_type.fields_by_name:
            setattr(message, field, name)
    return message


def expected(rule: Rule, method: str, scope: int, pattern: str, is_covered: bool) -> str | None:
    """PERMISSION_DENIED, or None for any other answer."""
    is_enough = scope >= rule.scope and (rule.is_general or is_covered)
    if method in NEED_ALL and pattern != "*":
        is_enough = False
    return None if is_enough else "PERMISSION_DENIED"


class Subject:
    """The server of this file and its keys."""

    def __init__(self, server: Running, keys: dict[str, str]) -> None:
        self.server = server
        self.keys = keys
        self.admin = keys["admin of all"]

    def rest(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        body: Any = None,
    ) -> tuple[int, str]:
        """Status and text of a request whose path goes out as it is written here."""
        link = http.client.HTTPConnection("127.0.0.1", self.server.rest_port, timeout=30)
        try:
            sent = {"content-type": "application/json", **(headers or {})}
            data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            link.request(method, path, data, sent)
            answer = link.getresponse()
            return answer.status, answer.read().decode()
        finally:
            link.close()


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    folder = tmp_path_factory.mktemp("access") / "db"
    folder.mkdir()
    keys = {
        kind: added_key(folder, f"{pattern}:{['', 'read', 'write', 'admin'][scope]}")
        for kind, (scope, pattern, _, _) in CALLERS.items()
    }
    soon = int(time.time() * 1e6) + 200_000
    keys["expired"] = added_key(folder, "*:admin", expires=soon)
    time.sleep(0.3)
    with Running(folder, "--log-calls", "--log-level", "debug") as server:
        subject = Subject(server, keys)
        for name in ("secret", "other", "MINE-LOUD"):
            server.call(
                "Collections/Create",
                collections_pb2.CreateCollectionRequest(collection=name, dim=2),
                key=subject.admin,
            )
        server.call(
            "Collections/SetAliases",
            collections_pb2.SetAliasesRequest(aliases={"mine-too": "secret"}),
            key=subject.admin,
        )
        yield subject


def bad_headers(subject: Subject) -> dict[str, list[tuple[str, str]]]:
    """Headers that are no key at all, by what is wrong with them."""
    good = subject.admin
    other = "A" if good[-1] != "A" else "B"
    return {
        "none": [],
        "wrong secret": metadata_of(good[:-1] + other),
        "unknown id": metadata_of(f"soar_00000000_{good[14:]}"),
        "expired": metadata_of(subject.keys["expired"]),
        "other kind": [("authorization", f"Basic {good}")],
        "no kind": [("authorization", good)],
        "no text": [("authorization", "Bearer")],
        "longer": metadata_of(f"{good}x"),
        "in other case": metadata_of(good.upper()),
        "bad beside good": [("x-api-key", good), ("authorization", "Bearer soar_no")],
        "empty": [("x-api-key", "")],
        "in another header": [("cookie", f"api_key={good}"), ("api-key", good)],
    }


class TestMethods:
    @pytest.mark.parametrize("method", METHODS)
    def test_nobody_without_a_good_key_is_answered(self, subject: Subject, method: str) -> None:
        """The body is garbage: who has no key is told nothing about it, so it was not read."""
        for what, headers in bad_headers(subject).items():
            for body in (b"", b"\xff\xff\xff", request_of(METHODS[method], "words")):
                code, _ = outcome(subject.server.call, method, body, metadata=headers)
                assert code == "UNAUTHENTICATED", (what, body)

    @pytest.mark.parametrize("method", METHODS)
    def test_each_caller_may_what_the_rule_says(self, subject: Subject, method: str) -> None:
        """All else (no such collection, a bad argument) is said only to who may ask."""
        rule = METHODS[method]
        for kind, (scope, pattern, name, is_covered) in CALLERS.items():
            asked = request_of(rule, name)
            code, why = outcome(subject.server.call, method, asked, key=subject.keys[kind])
            wanted = expected(rule, method, scope, pattern, is_covered)
            if wanted is None:
                assert code not in ("UNAUTHENTICATED", "PERMISSION_DENIED"), (kind, why)
                assert code not in ("INTERNAL", "UNKNOWN"), (kind, why)
            else:
                assert code == wanted, (kind, why)

    @pytest.mark.parametrize("method", [m for m in METHODS if not METHODS[m].is_general])
    def test_what_is_there_and_what_is_not_are_refused_alike(
        self, subject: Subject, method: str
    ) -> None:
        """Else a key could be used to find out the names of others."""
        said = []
        for name in ("secret", "nothing"):
            asked = request_of(METHODS[method], name)
            code, why = outcome(
                subject.server.call, method, asked, key=subject.keys["admin of another"]
            )
            said.append((code, why.replace(name, "X")))
        assert said[0] == said[1]
        assert said[0][0] == "PERMISSION_DENIED"

    @pytest.mark.parametrize(
        "method",
        [m for m, rule in METHODS.items() if rule.method.client_streaming and not rule.is_general],
    )
    def test_a_stream_cannot_change_to_another_collection(
        self, subject: Subject, method: str
    ) -> None:
        """The first message is authorised; a later one that names another ends the stream."""
        rule = METHODS[method]
        name = "mine-own"
        key = added_key(subject.server.folder, f"{name}:admin")
        time.sleep(1.0)
        ask = collections_pb2.CreateCollectionRequest(collection=name, dim=2, exist_ok=True)
        subject.server.call("Collections/Create", ask, key=key)
        sent = [request_of(rule, name), request_of(rule, "secret")]
        code, _ = outcome(subject.server.call, method, sent, key=key)
        assert code == "INVALID_ARGUMENT"

    def test_a_body_that_cannot_be_parsed_is_said_to_be_so_with_a_key(
        self, subject: Subject
    ) -> None:
        """So that the test above is not one of a server that refuses everything."""
        code, _ = outcome(subject.server.call, "Points/Count", b"\xff\xff\xff", key=subject.admin)
        assert code == "INVALID_ARGUMENT"

    def test_list_shows_what_the_key_may_read(self, subject: Subject) -> None:
        """Names are told to nobody else; an alias counts as what it stands for."""
        ask = collections_pb2.ListCollectionsRequest()
        mine = subject.server.call(
            "Collections/List", ask, key=subject.keys["admin of an alias of another's"]
        )
        assert "secret" not in str(mine)
        assert "MINE-LOUD" not in str(mine)
        every = subject.server.call("Collections/List", ask, key=subject.admin)
        assert dict(every.aliases) == {"mine-too": "secret"}

    def test_an_alias_cannot_be_pointed_at_what_is_not_the_callers(self, subject: Subject) -> None:
        """Nor one be taken away that stands for it."""
        key = subject.keys["admin of an alias of another's"]
        for aliases in ({"mine-2": "secret"}, {"mine-too": ""}, {"mine-too": "mine-own"}):
            ask = collections_pb2.SetAliasesRequest(aliases=aliases)
            code, _ = outcome(subject.server.call, "Collections/SetAliases", ask, key=key)
            assert code == "PERMISSION_DENIED", aliases

    def test_info_tells_the_callers_grants_alone(self, subject: Subject) -> None:
        """And no hash of any key."""
        ask = admin_pb2.ServerInfoRequest()
        told = str(subject.server.call("Admin/ServerInfo", ask, key=subject.keys["read"]))
        assert "words*" in told
        assert "other" not in told
        assert re.search("[0-9a-f]{64}", told) is None


class TestRules:
    def test_a_method_without_a_rule_stops_the_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It could be called by nobody or by everybody; neither was decided."""
        monkeypatch.setattr(access, "FILES", (*access.FILES, _file_with(options="")))
        with pytest.raises(TypeError, match="no access rule"):
            list(access.rules())

    def test_a_method_about_a_collection_must_name_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else there is nothing to authorise."""
        monkeypatch.setattr(access, "FILES", (_file_with(options="read"),))
        with pytest.raises(TypeError, match="does not name"):
            list(access.rules())

    def test_a_method_without_a_handler_stops_the_start(self) -> None:
        """A rule alone is no method."""
        with pytest.raises(TypeError, match="no handler"):
            handlers_of({})

    def test_every_rule_of_a_change_is_for_the_writing_process(self) -> None:
        """What needs more than READ changes something, and only one process may."""
        wrong = [m for m, r in METHODS.items() if r.scope > READ and not r.on_writer]
        assert not wrong


def _file_with(options: str) -> Any:
    """A descriptor of a service with one method, with a rule or without."""
    proto = descriptor_pb2.FileDescriptorProto(
        name=f"tests/forgotten_{options or 'nothing'}.proto", package="soardb.v1", syntax="proto3"
    )
    proto.message_type.add(name="Asked")
    method = proto.service.add(name="Forgotten").method.add(
        name="Do", input_type=".soardb.v1.Asked", output_type=".soardb.v1.Asked"
    )
    if options:
        held: Any = method.options
        held.Extensions[access_pb2.access].scope = READ
    pool = descriptor_pool.DescriptorPool()
    pool.Add(proto)
    return pool.FindFileByName(proto.name)


class TestWithoutKey:
    def test_health_is_told_to_everybody(self, subject: Subject) -> None:
        """Load balancers have no keys."""
        channel = subject.server.channel()
        assert channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=10) == b"\x08\x01"
        assert subject.rest("GET", "/healthz")[0] == 200

    def test_reflection_wants_a_key(self, subject: Subject) -> None:
        """It tells what there is to call."""
        path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        ask = subject.server.channel().stream_stream(path)
        list_services = b"\x3a\x00"
        code, _ = outcome(lambda: list(ask(iter([list_services]), timeout=10)))
        assert code == "UNAUTHENTICATED"
        answer = list(
            ask(iter([list_services]), timeout=10, metadata=metadata_of(subject.keys["read"]))
        )
        assert b"soardb.v1.Points" in answer[0]

    def test_what_is_no_method_is_no_way_in(self, subject: Subject) -> None:
        """Paths are compared as a whole, in their own case."""
        channel = subject.server.channel()
        for path in ("/soardb.v1.points/count", "/soardb.v1.Points/Count/", "/x.Y/Z"):
            code, _ = outcome(channel.unary_unary(path), b"", timeout=10)
            assert code == "UNIMPLEMENTED", path


def every_route(subject: Subject) -> list[str]:
    _, text = subject.rest("GET", "/openapi.json")
    return [
        f"{method.upper()} {path}"
        for path, methods in json.loads(text)["paths"].items()
        for method in methods
    ]


def filled(path: str, name: str) -> str:
    return path.format(collection=name, name="op-1", snapshot="s-0123456789abcdef", model="large")


class TestRest:
    def test_each_route_is_entered_here(self, subject: Subject) -> None:
        """A new route is in this table, or this test fails."""
        assert set(every_route(subject)) == set(ROUTES) | WITHOUT_KEY

    @pytest.mark.parametrize("route", ROUTES)
    def test_no_spelling_of_a_path_is_a_way_in(self, subject: Subject, route: str) -> None:
        """Encoded, doubly encoded, in other case, with slashes, with a method in a header."""
        method, _, path = route.partition(" ")
        path = filled(path, "other")
        spellings = [
            path,
            f"{path}/",
            f"/{path}",
            path.replace("/v1/", "/V1/"),
            path.upper(),
            path.replace("/v1/", "/%76%31/"),
            path.replace("/v1/", "%2fv1%2f"),
            path.replace("/v1/", "%252fv1%252f"),
            f"/docs/..{path}",
            f"/docs%2f..{path.replace('/', '%2f')}",
            f"/docs%252f..{path.replace('/', '%252f')}",
            f"/healthz/../..{path}",
            f"/healthz;{path}",
            f"{path}?x=/healthz",
            f"{path}#/docs",
            f"http://localhost{path}",
        ]
        for spelling in spellings:
            assert subject.rest(method, spelling)[0] == 401, spelling
        override = {"x-http-method-override": method, "x-original-url": path}
        assert subject.rest("POST", path, override)[0] == 401
        code, text = subject.rest("GET", "/healthz", override)
        assert (code, text) == (200, '{"serving":true}')
        for header in ("x-forwarded-for", "x-real-ip", "forwarded"):
            assert subject.rest(method, path, {header: "127.0.0.1"})[0] == 401

    @pytest.mark.parametrize("route", ROUTES)
    def test_no_bad_key_is_answered(self, subject: Subject, route: str) -> None:
        """A body that is no JSON is not looked at either."""
        method, _, path = route.partition(" ")
        for what, headers in bad_headers(subject).items():
            code, _ = subject.rest(method, filled(path, "words"), dict(headers), b"{{{")
            assert code == 401, what

    @pytest.mark.parametrize("route", ROUTES)
    def test_each_caller_may_what_the_rule_says(self, subject: Subject, route: str) -> None:
        """The same table as for gRPC, over the other door."""
        way, _, path = route.partition(" ")
        method = ROUTES[route]
        rule = METHODS[method]
        for kind, (scope, pattern, name, is_covered) in CALLERS.items():
            body = BODIES.get(method)
            if method == "Collections/Create" or "new_name" in (body or {}):
                field = "collection" if method == "Collections/Create" else "new_name"
                body = {**(body or {}), field: name}
            headers = {"authorization": f"Bearer {subject.keys[kind]}"}
            code, text = subject.rest(way, filled(path, name), headers, body)
            if expected(rule, method, scope, pattern, is_covered):
                assert code == 403, (kind, text)
            else:
                assert code in (200, 400, 404, 412), (kind, text)

    @pytest.mark.parametrize("name", ["..", "%2e%2e", "%2e%2e%2fcatalog.json", "a%00b", "a%5cb"])
    def test_a_name_is_never_a_path(self, subject: Subject, name: str) -> None:
        """With every right, too."""
        headers = {"x-api-key": subject.admin}
        for path in (f"/v1/collections/{name}", f"/v1/collections/other/snapshots/{name}"):
            code, text = subject.rest("GET", path, headers)
            assert code in (400, 404), (path, text)

    def test_two_keys_in_one_request_are_none(self, subject: Subject) -> None:
        """Which of them counts would depend on who looks."""
        link = http.client.HTTPConnection("127.0.0.1", subject.server.rest_port, timeout=30)
        link.putrequest("GET", "/v1/collections")
        link.putheader("authorization", f"Bearer {subject.keys['read']}")
        link.putheader("authorization", f"Bearer {subject.admin}")
        link.endheaders()
        assert link.getresponse().status == 400
        link.close()

    def test_a_page_under_another_name_is_refused(self, subject: Subject) -> None:
        """A browser can be made to ask loopback under a name of the attacker's."""
        for host in ("evil.example", "evil.example:7601", "127.0.0.1.evil.example", "[::2]"):
            assert subject.rest("GET", "/v1/info", {"host": host})[0] == 400, host


class TestWhatIsTold:
    def test_no_error_names_what_is_not_the_callers(self, subject: Subject) -> None:
        """Neither collections of others nor folders of the server, whatever goes wrong."""
        server = subject.server
        key = added_key(server.folder, "mine*:admin")
        time.sleep(1.0)
        create = collections_pb2.CreateCollectionRequest(collection="mine", dim=2)
        server.call("Collections/Create", create, key=key)
        vectors = columns.pack_matrix(np.ones((1, 3), np.float32))
        wrong = points_pb2.UpsertRequest(
            collection="mine", ids=columns.pack_ids(np.arange(1)), vectors=vectors
        )
        loud = collections_pb2.CreateCollectionRequest(collection="mine-loud", dim=2)
        asked: list[tuple[str, Any]] = [
            ("Collections/Create", loud),
            ("Collections/Create", create),
            ("Points/Upsert", wrong),
            (
                "Collections/SetAliases",
                collections_pb2.SetAliasesRequest(aliases={"mine-a": "mine-gone"}),
            ),
            (
                "Collections/Rename",
                collections_pb2.RenameCollectionRequest(collection="mine", new_name="mine-loud"),
            ),
        ]
        asked += [
            (method, request_of(rule, name))
            for method, rule in METHODS.items()
            for name in ("mine", "mine-gone", "mine/../x", "secret")
            if rule.method.name not in ("Drop", "Build", "Compact", "Tune", "Create")
        ]
        for method, request in asked:
            code, why = outcome(server.call, method, request, key=key)
            for word in ("other", "MINE-LOUD", str(server.folder), server.folder.parent.name):
                assert word not in why, (method, code)
            if getattr(request, "collection", "") != "secret":
                assert "secret" not in why, (method, code)

    def test_damage_is_told_without_folders(self, tmp_path: Path) -> None:
        """Such messages come from the engine, where they have the whole path."""
        folder = tmp_path / "hidden-folder" / "db"
        folder.mkdir(parents=True)
        key = added_key(folder, "mine:admin")
        create = collections_pb2.CreateCollectionRequest(collection="mine", dim=2)
        with Running(folder, key=key) as server:
            server.call("Collections/Create", create)
        for file in folder.glob("c-*/rows.sqlite"):
            file.write_bytes(b"damaged" * 1000)
        with Running(folder, key=key) as server:
            ask = points_pb2.CountRequest(collection="mine")
            code, why = outcome(server.call, "Points/Count", ask)
            assert code == "DATA_LOSS", why
            assert "hidden-folder" not in why
            assert "hidden-folder" in server.log()

    def test_no_key_is_in_any_log(self, subject: Subject) -> None:
        """With every call logged, at the level that says most. The ids of keys may be."""
        with pytest.raises(grpc.RpcError):
            subject.server.call("Points/Count", b"\xff", key=subject.admin, timeout=5)
        log = subject.server.log()
        assert "Points/Count" in log
        for text in subject.keys.values():
            assert text not in log
            assert text[14:] not in log
        held = json.loads((subject.server.folder / ".keys.json").read_text("utf-8"))
        for entry in held["keys"]:
            assert entry["sha256"] not in log
        assert "Traceback" not in log
        assert "internal error" not in log
