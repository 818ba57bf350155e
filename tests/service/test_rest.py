"""REST: every method over HTTP and JSON, with the same answers and errors as gRPC.

    soardb_service/rest.py -> [test_rest.py] -> a server process, httpx

Who may call what over REST is tested with the authorisation of gRPC.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import soardb
from tests.service.running import METHODS, Running

N, D = 300, 8


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tmp_path_factory.mktemp("rest") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def http(server: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((N, D), dtype=np.float32)


@pytest.fixture(scope="module")
def filled(http: httpx.Client, vectors: np.ndarray) -> str:
    body = {"collection": "words", "dim": D, "schema": {"tag": "keyword", "body": "text"}}
    made = http.post("/v1/collections", json=body).json()
    assert (made["name"], made["dim"], made["metric"]) == ("words", D, "COSINE")
    payloads = [{"tag": f"t{i % 3}", "body": f"word{i} common"} for i in range(N)]
    stored = http.post(
        "/v1/collections/words/upsert",
        json={"ids": list(range(N)), "vectors": vectors.tolist(), "payloads": payloads},
    )
    assert stored.json() == {"count": N, "seq": N}
    return "/v1/collections/words"


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, vectors: np.ndarray) -> Iterator[Any]:
    with soardb.connect(tmp_path_factory.mktemp("embedded")) as database:
        collection = database.create_collection("words", D, schema={"tag": "keyword"})
        collection.upsert(np.arange(N), vectors, [{"tag": f"t{i % 3}"} for i in range(N)])
        yield collection


class TestSearch:
    def test_it_answers_as_the_embedded_database(
        self, http: httpx.Client, filled: str, embedded: Any, vectors: np.ndarray
    ) -> None:
        """Ids and scores to the last bit: JSON carries a float32 whole."""
        body = {"vectors": vectors[:5].tolist(), "limit": 4, "filter": "tag = 't1'"}
        found = http.post(f"{filled}/search", json=body).json()["results"]
        expected = embedded.search(vectors[:5], 4, filter="tag = 't1'")
        assert [r["ids"] for r in found] == [h.ids.tolist() for h in expected]
        assert [r["scores"] for r in found] == [h.scores.tolist() for h in expected]
        assert found[0]["payloads"][0]["tag"] == "t1"

    def test_base64_is_another_spelling(
        self, http: httpx.Client, filled: str, vectors: np.ndarray
    ) -> None:
        """A tenth of the time to read."""
        text = base64.b64encode(vectors[:2].astype("<f4").tobytes()).decode()
        one = http.post(f"{filled}/search", json={"vectors_b64": text, "dim": D}).json()
        two = http.post(f"{filled}/search", json={"vectors": vectors[:2].tolist()}).json()
        assert one == two

    def test_every_form_of_a_search(
        self, http: httpx.Client, filled: str, vectors: np.ndarray
    ) -> None:
        """By id, by words, by both, in groups, explained, with vectors, with a JSON filter."""

        def ask(**body: Any) -> Any:
            return http.post(f"{filled}/search", json=body).json()

        assert 7 not in ask(id=7)["results"][0]["ids"]
        assert ask(text="word5")["results"][0]["ids"] == [5]
        both = ask(text="word9", vector=vectors[9].tolist(), fusion="weighted", weights=[0.5, 2])
        assert both["results"][0]["ids"][0] == 9
        groups = ask(vector=vectors[0].tolist(), group_by="tag", group_size=2)["groups"]
        assert sorted(g["value"] for g in groups) == ["t0", "t1", "t2"]
        assert all(g["count"] == 2 for g in groups)
        plan = ask(vector=vectors[0].tolist(), explain=True)["plan"]
        assert (plan["strategy"], plan["live"]) == ("exact", N)
        found = ask(vector=vectors[4].tolist(), limit=1, with_vectors=True)["results"][0]
        assert found["vectors"][0] == vectors[4].tolist()
        where = {"field": "tag", "op": "eq", "value": "t2"}
        found = ask(vector=vectors[0].tolist(), filter=where)["results"][0]
        assert {p["tag"] for p in found["payloads"]} == {"t2"}


class TestPoints:
    def test_get_scroll_count_and_export_agree(
        self, http: httpx.Client, filled: str, vectors: np.ndarray
    ) -> None:
        """Four ways to the same points."""
        body = {"ids": [3, 999_999], "with_vectors": True}
        three, missing = http.post(f"{filled}/get", json=body).json()["points"]
        assert missing is None
        assert three["payload"]["tag"] == "t0"
        assert three["vector"] == vectors[3].tolist()
        seen, token = [], ""
        while token is not None:
            page = http.post(f"{filled}/scroll", json={"page_size": 70, "page_token": token}).json()
            seen += [point["id"] for point in page["points"]]
            token = page["next_page_token"]
        lines = http.get(f"{filled}/export").text.splitlines()
        exported = [json.loads(line) for line in lines]
        assert sorted(seen) == sorted(point["id"] for point in exported) == list(range(N))
        assert http.post(f"{filled}/count").json() == {"count": N}
        assert http.post(f"{filled}/count", json={"filter": "tag = 't0'"}).json() == {"count": 100}

    def test_writes_change_what_is_read(self, http: httpx.Client) -> None:
        """Update, delete by filter, delete by id, insert that refuses."""
        base = "/v1/collections/changing"
        http.post("/v1/collections", json={"collection": "changing", "dim": 2,
                                           "schema": {"n": "int"}}).raise_for_status()  # fmt: skip
        rows = {"ids": ["a", "b", "c"], "vectors": [[1, 0], [0, 1], [1, 1]],
                "payloads": [{"n": 1}, {"n": 2}, None]}  # fmt: skip
        assert http.post(f"{base}/upsert", json=rows).json()["count"] == 3
        again = http.post(f"{base}/upsert", json=rows | {"mode": "insert"})
        assert again.status_code == 409
        assert again.json()["error"]["code"] == "ALREADY_EXISTS"
        changed = {"ids": ["c"], "payload": {"n": 9, "new": True}}
        assert http.post(f"{base}/update_payload", json=changed).json()["count"] == 1
        each = {"ids": ["c", "a"], "payload": [{"own": 1}, {}]}
        assert http.post(f"{base}/update_payload", json=each).json()["count"] == 2
        assert http.post(f"{base}/update_payload", json={**each, "ids": ["c"]}).status_code == 400
        assert http.post(f"{base}/delete", json={"filter": "n < 2"}).json()["count"] == 1
        assert http.post(f"{base}/delete", json={"ids": ["b", "zz"]}).json()["count"] == 1
        (left,) = http.post(f"{base}/scroll").json()["points"]
        assert left == {"id": "c", "payload": {"n": 9, "new": True, "own": 1}}

    def test_a_request_id_makes_a_write_once(self, http: httpx.Client) -> None:
        """A retry after a lost answer has the answer of the first."""
        base = "/v1/collections/once"
        http.post("/v1/collections", json={"collection": "once", "dim": 2}).raise_for_status()
        rows = {"ids": [1], "vectors": [[1, 0]], "mode": "insert", "request_id": "r-1"}
        first, second = (http.post(f"{base}/upsert", json=rows).json() for _ in range(2))
        assert first == second == {"count": 1, "seq": 1}


class TestCollections:
    def test_names_aliases_and_the_end(self, http: httpx.Client) -> None:
        """Made, seen under an alias, renamed, dropped."""
        http.post("/v1/collections", json={"collection": "one", "dim": 2}).raise_for_status()
        http.post("/v1/aliases", json={"aliases": {"also": "one"}}).raise_for_status()
        assert http.get("/v1/collections/also").json()["name"] == "one"
        http.post("/v1/collections/one/rename", json={"new_name": "two"}).raise_for_status()
        listed = http.get("/v1/collections").json()
        assert "two" in listed["names"]
        assert listed["aliases"]["also"] == "two"
        http.post("/v1/aliases", json={"aliases": {"also": None}}).raise_for_status()
        http.delete("/v1/collections/two").raise_for_status()
        assert http.get("/v1/collections/two").status_code == 404

    def test_long_work_is_followed(self, http: httpx.Client, filled: str) -> None:
        """Compact, tune and a snapshot that is downloaded and restored."""

        def done(operation: dict[str, Any], base: str = filled) -> dict[str, Any]:
            end = time.monotonic() + 60
            while operation["state"] == "RUNNING" and time.monotonic() < end:
                url = f"{base}/operations/{operation['name']}"
                operation = http.get(url, params={"wait_s": 5}).json()
            assert operation["state"] == "SUCCEEDED", operation
            return operation

        assert done(http.post(f"{filled}/index/compact").json())["result"]["points"] == N
        curve = done(http.post(f"{filled}/index/tune", json={"k": 5, "queries": 20}).json())
        assert curve["result"]["k"] == 5
        taken = done(http.post(f"{filled}/snapshots").json())["result"]
        (listed,) = http.get(f"{filled}/snapshots").json()["snapshots"]
        assert listed["name"] == taken["snapshot"]
        data = http.get(f"{filled}/snapshots/{taken['snapshot']}").content
        assert len(data) == taken["size"] == listed["size"]
        url = f"{filled}/snapshots/{taken['snapshot']}/restore"
        base = "/v1/collections/again"
        restored = http.post(url, json={"new_name": "again"}).json()
        assert done(restored, base)["result"]["points"] == N
        http.delete(f"{filled}/snapshots/{taken['snapshot']}").raise_for_status()
        assert http.get(f"{filled}/snapshots").json()["snapshots"] == []
        status = http.get(f"{base}/index").json()
        assert status["points"] == N
        assert status["disk_bytes"]["rows"] > 0


class TestErrors:
    @pytest.mark.parametrize(
        ("path", "body", "status", "said"),
        [
            ("nowhere/search", {"vector": [1] * D}, 404, "nowhere"),
            ("words/search", {"vector": [1, 2]}, 400, "(n, 8)"),
            ("words/search", {"vector": [0] * D, "limit": 10**6}, 400, "limit"),
            ("words/search", {"vector": [1] * D, "filter": "colour = 1"}, 400, "colour"),
            ("words/search", {"vector": [1] * D, "filtre": "x"}, 400, "filtre"),
            ("words/search", {"vector": "x"}, 400, "vector"),
            ("words/search", {"vector": [1] * D, "id": 3}, 400, "several"),
            ("words/search", {"vectors": [[1] * D, [1]]}, 400, "one length"),
            ("words/search", {"vectors_b64": "!", "dim": D}, 400, "base64"),
            ("words/upsert", {"ids": [1, "a"], "vectors": [[1] * D] * 2}, 400, "ids"),
            ("words/upsert", {"ids": [2**70], "vectors": [[1] * D]}, 400, "int64"),
            ("words/upsert", {"ids": [1], "vectors": [[1e39] * D]}, 400, "finite"),
            ("words/upsert", {"ids": [1], "vectors": [[1] * D], "payloads": [3]}, 400, "payloads"),
            ("words/delete", {}, 400, "either ids or a filter"),
            ("words/get", {"ids": [1.5]}, 400, "ids"),
            ("words/scroll", {"page_token": "made up"}, 400, "page_token"),
        ],
    )
    def test_a_mistake_is_told_by_name(
        self, http: httpx.Client, filled: str, path: str, body: Any, status: int, said: str
    ) -> None:
        """What was expected, what came, what to do: the words of the engine."""
        answer = http.post(f"/v1/collections/{path}", json=body)
        assert answer.status_code == status, answer.text
        assert said in answer.json()["error"]["message"]

    def test_what_is_no_json_is_refused(self, http: httpx.Client, filled: str) -> None:
        """With 400, whatever came."""
        for data in (b"{", b"\xff\xfe", b"[" * 10_000, b'{"vector": NaN}'):
            headers = {"content-type": "application/json"}
            answer = http.post(f"{filled}/search", content=data, headers=headers)
            assert answer.status_code == 400, answer.text

    def test_time_that_is_up_is_504(self, http: httpx.Client, filled: str) -> None:
        """The header carries the deadline."""
        answer = http.post(f"{filled}/count", headers={"x-timeout-s": "1e-9"})
        assert answer.status_code == 504

    def test_a_foreign_host_is_refused(self, http: httpx.Client) -> None:
        """A web page that reaches loopback under a name of its own reads nothing."""
        assert http.get("/v1/collections", headers={"host": "evil.example"}).status_code == 400
        answer = http.get("/v1/collections", headers={"origin": "http://evil.example"})
        assert answer.status_code == 400


class TestDocument:
    def test_every_method_has_its_route(self, http: httpx.Client) -> None:
        """What gRPC can do, REST can, but for the streams in, and operations of no collection."""
        paths = http.get("/openapi.json").json()["paths"]
        operations = {
            operation["operationId"] for path in paths.values() for operation in path.values()
        }
        others = {"Points/Ingest", "Snapshots/Upload", "Models/Upload", "Models/Evaluate"}
        assert len(operations) >= len(METHODS) - len(others) - 1

    def test_health_needs_nothing(self, http: httpx.Client) -> None:
        """As probes ask."""
        assert http.get("/healthz").json() == {"serving": True}
        info = http.get("/v1/info").json()
        assert info["version"] == soardb.__version__
        assert info["caps"]["rows"] == 10_000


def test_ready_file_names_the_ports(server: Running, tmp_path: Path) -> None:
    """Programs that start a server on free ports find them there."""
    assert server.port != server.rest_port
    assert server.rest_port > 0
