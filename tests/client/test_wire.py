"""What goes over the wire: addresses, keys, deadlines, connections, sequence numbers, sizes.

conftest.py (a server that does as told) -> [test_wire.py] -> soardb_client/target.py, wire.py
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

import soardb
from soardb.errors import Closed, InvalidArgument, NotAllowed, NotFound, SoarError, Unavailable
from soardb_client import Client
from soardb_client.target import KEY_VARIABLE, settings_of
from soardb_proto.v1 import points_pb2, types_pb2
from tests.client.conftest import D, Fake, Opener, status

VECTOR = np.ones((1, D), np.float32)
KEY = "sk-secret-key"

DEFAULTS: dict[str, Any] = {
    "api_key": None,
    "ca": None,
    "certificate": None,
    "private_key": None,
    "timeout": 10.0,
    "write_timeout": 60.0,
    "connections": 1,
    "retries": 5,
    "allow_plaintext_key": False,
}


class TestTargets:
    @pytest.mark.parametrize(
        ("target", "address", "is_tls"),
        [
            ("grpc://localhost:7600", "localhost:7600", False),
            ("grpc://host", "host:7600", False),
            ("grpcs://host.example:443", "host.example:443", True),
            ("grpc://[::1]:80", "[::1]:80", False),
            ("grpc://10.0.0.1:1/", "10.0.0.1:1", False),
            ("grpc://unix:run/soardb.sock", "unix:run/soardb.sock", False),
        ],
    )
    def test_addresses(self, target: str, address: str, is_tls: bool) -> None:
        """As grpc wants them."""
        settings = settings_of(target, **DEFAULTS)
        assert settings.address == address
        assert (settings.tls is not None) == is_tls

    @pytest.mark.parametrize(
        "target",
        ["localhost:7600", "http://x", "grpc://", "grpc://h:99999", "grpc://h:1/path", "grpc://a@b",
         "grpc://unix:", "grpc://h:x", 5, None, "grpc://h?x=1"],
    )  # fmt: skip
    def test_what_is_no_address(self, target: Any) -> None:
        """Said at once, not when the first call fails."""
        with pytest.raises(InvalidArgument, match="grpc://host:port|unix:"):
            settings_of(target, **DEFAULTS)

    @pytest.mark.parametrize(
        "options",
        [
            {"timeout": 0},
            {"timeout": "5"},
            {"write_timeout": float("inf")},
            {"connections": 0},
            {"retries": -1},
            {"api_key": ""},
            {"api_key": "with space"},
            {"api_key": "k\nx: y"},
            {"ca": "x"},
        ],
        ids=str,
    )
    def test_options_that_cannot_be(self, options: dict[str, Any]) -> None:
        """Likewise; a key is not shown."""
        with pytest.raises(InvalidArgument) as caught:
            settings_of("grpc://localhost", **DEFAULTS | options)
        if options.get("api_key"):
            assert options["api_key"] not in str(caught.value)

    def test_certificate_and_key_come_together(self, tmp_path: Path) -> None:
        """And from files that are there."""
        with pytest.raises(InvalidArgument, match="together"):
            settings_of("grpcs://h", **DEFAULTS | {"certificate": tmp_path})
        with pytest.raises(NotFound, match="PEM"):
            settings_of("grpcs://h", **DEFAULTS | {"ca": tmp_path / "no.pem"})

    def test_what_belongs_to_a_directory_is_refused(self) -> None:
        """A server was opened by whoever started it."""
        for options in ({"read_only": True}, {"create": False}, {"memory_limit": 2**30}):
            with pytest.raises(InvalidArgument, match="server"):
                soardb.connect("grpc://localhost:1", **options)

    def test_connect_calls_nobody(self) -> None:
        """A program may start before its server."""
        with soardb.connect("grpc://127.0.0.1:1", connections=3) as database:
            assert isinstance(database, Client)
            assert repr(database) == "Client('grpc://127.0.0.1:1')"

    def test_connect_does_not_load_the_engine(self) -> None:
        """A client runs where no kernel was ever compiled."""
        script = (
            "import soardb, sys; soardb.connect('grpc://127.0.0.1:1').close()\n"
            "bad = {'soardb.database', 'soardb.index', 'soardb.storage', 'apsw', 'pyarrow',"
            " 'sqlglot', 'soardb.kernels._native'} & set(sys.modules)\n"
            "assert not bad, bad"
        )
        subprocess.run([sys.executable, "-P", "-c", script], check=True, timeout=60)


class TestKeys:
    def test_a_key_is_sent_with_every_call(self, fake: Fake, client_of: Opener) -> None:
        """As a bearer token."""
        keys: list[Any] = []

        def count(request: Any, context: grpc.ServicerContext) -> Any:
            keys.append(dict(context.invocation_metadata()).get("authorization"))
            return points_pb2.CountReply()

        fake.methods["Count"] = count
        client_of(fake.target, api_key=KEY).get_collection("c").count()
        assert keys == [f"Bearer {KEY}"]

    def test_the_environment_may_hold_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A key that is passed comes first."""
        monkeypatch.setenv(KEY_VARIABLE, "of-environment")
        assert settings_of("grpc://localhost", **DEFAULTS).metadata[0][1].endswith("environment")
        given = settings_of("grpc://localhost", **DEFAULTS | {"api_key": KEY})
        assert given.metadata[0][1].endswith(KEY)

    @pytest.mark.parametrize("host", ["db.example", "10.0.0.1", "[2001:db8::1]", "127.evil.com"])
    def test_it_is_not_sent_in_the_clear_to_another_machine(self, host: str) -> None:
        """Everybody on the way could read it."""
        with pytest.raises(NotAllowed, match="grpcs://") as caught:
            settings_of(f"grpc://{host}", **DEFAULTS | {"api_key": KEY})
        assert KEY not in str(caught.value)
        settings_of(f"grpcs://{host}", **DEFAULTS | {"api_key": KEY})
        settings_of(f"grpc://{host}", **DEFAULTS | {"api_key": KEY, "allow_plaintext_key": True})

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "[::1]", "unix:sock"])
    def test_it_may_be_within_one(self, host: str) -> None:
        """Nobody is on the way there."""
        settings_of(f"grpc://{host}", **DEFAULTS | {"api_key": KEY})

    def test_it_is_never_shown(self) -> None:
        """Neither by the client nor by its settings."""
        client = Client("grpc://localhost:1", api_key=KEY)
        assert KEY not in repr(client) + repr(client._wire.settings) + str(vars(client))
        client.close()


class TestConnections:
    def test_each_is_a_real_one(self, fake: Fake, client_of: Opener) -> None:
        """Channels to one address would share one otherwise."""
        fake.methods["Count"] = lambda request, context: points_pb2.CountReply()
        collection = client_of(fake.target, connections=3).get_collection("c")
        for _ in range(6):
            collection.count()
        peers = [peer for name, _, peer in fake.seen if name == "Count"]
        assert len(set(peers)) == 3
        assert peers[:3] == peers[3:]

    def test_a_unix_socket(self, tmp_path: Path, client_of: Opener) -> None:
        """For those on the same machine."""
        server = Fake(f"unix:{tmp_path}/s")
        assert client_of(server.target).get_collection("c").d == D
        server.stop()

    @pytest.mark.parametrize(("method", "seconds"), [("count", 10), ("upsert", 60)])
    def test_every_call_has_a_deadline(
        self, fake: Fake, client_of: Opener, method: str, seconds: float
    ) -> None:
        """Its own, or the usual one."""
        left: list[float] = []

        def count(request: Any, context: grpc.ServicerContext) -> Any:
            left.append(context.time_remaining() or 0.0)
            return points_pb2.CountReply()

        def upsert(request: Any, context: grpc.ServicerContext) -> Any:
            left.append(context.time_remaining() or 0.0)
            return points_pb2.WriteReply()

        fake.methods |= {"Count": count, "Upsert": upsert}
        arguments = ([1], VECTOR) if method == "upsert" else ()
        client = client_of(fake.target)
        getattr(client.get_collection("c"), method)(*arguments)
        getattr(client.get_collection("c"), method)(*arguments, timeout=3)
        assert seconds - 2 < left[0] < seconds + 1
        assert 1 < left[1] < 4

    def test_closing_ends_what_is_under_way(self, fake: Fake, client_of: Opener) -> None:
        """With Closed, in the thread that waits."""
        begun = threading.Event()

        def count(request: Any, context: grpc.ServicerContext) -> Any:
            begun.set()
            time.sleep(0.5)
            return points_pb2.CountReply()

        fake.methods["Count"] = count
        client = client_of(fake.target)
        collection = client.get_collection("c")
        caught: list[BaseException] = []

        def wait() -> None:
            try:
                collection.count()
            except BaseException as error:  # noqa: BLE001  looked at below
                caught.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        assert begun.wait(10)
        client.close()
        thread.join(10)
        assert isinstance(caught[0], Closed)


class TestReadYourWrites:
    def test_a_read_asks_for_the_last_write_of_this_client(
        self, fake: Fake, client_of: Opener
    ) -> None:
        """Whichever process of the server answers it."""
        numbers = iter([7, 5])
        fake.methods["Upsert"] = lambda r, c: points_pb2.WriteReply(count=1, seq=next(numbers))
        fake.methods["Count"] = lambda r, c: points_pb2.CountReply()
        client = client_of(fake.target)
        collection = client.get_collection("c")
        collection.count()
        collection.upsert([1], VECTOR)
        collection.upsert([1], VECTOR)
        collection.count()
        client.get_collection("c").count()
        client.get_collection("other").count()
        assert [request.min_seq for request in fake.requests("Count")] == [0, 7, 7, 0]


BAD_REPLIES: list[points_pb2.SearchReply] = [
    points_pb2.SearchReply(counts=[2], ids=types_pb2.Ids(i64=b"\0" * 8), scores=b"\0" * 8),
    points_pb2.SearchReply(counts=[1], ids=types_pb2.Ids(i64=b"\0" * 8), scores=b"\0" * 7),
    points_pb2.SearchReply(counts=[1], ids=types_pb2.Ids(i64=b"\0" * 5), scores=b"\0" * 4),
    points_pb2.SearchReply(counts=[1], ids=types_pb2.Ids(i64=b"\0" * 8), scores=b"\0" * 4),
    points_pb2.SearchReply(counts=[2**32 - 1] * 9),
]


class TestReplies:
    @pytest.mark.parametrize("reply", BAD_REPLIES, ids=range(len(BAD_REPLIES)))
    def test_one_that_contradicts_itself_is_refused(
        self, fake: Fake, client_of: Opener, reply: points_pb2.SearchReply
    ) -> None:
        """A client does not trust that what answers is a soardb server."""
        fake.methods["Search"] = lambda request, context: reply
        with pytest.raises(Unavailable, match="well-formed"):
            client_of(fake.target).get_collection("c").search(VECTOR)

    def test_a_server_that_does_not_know_the_method(self, fake: Fake, client_of: Opener) -> None:
        """An older one, or something else on that port: trying again does not help."""
        with pytest.raises(InvalidArgument, match="Points/Count"):
            client_of(fake.target).get_collection("c").count()

    def test_an_internal_error_is_the_root_of_the_tree(self, fake: Fake, client_of: Opener) -> None:
        """It is no mistake of the caller, and not worth trying again."""
        fake.methods["Count"] = lambda r, context: status(context, grpc.StatusCode.INTERNAL)
        with pytest.raises(SoarError) as caught:
            client_of(fake.target).get_collection("c").count()
        assert type(caught.value) is SoarError

    def test_a_message_that_is_too_large(self, fake: Fake, client_of: Opener) -> None:
        """Said before it is sent, with what to do, and not as a time-out."""
        collection = client_of(fake.target).get_collection("c")
        payloads = [{"text": "x" * 900_000}] * 80
        with pytest.raises(InvalidArgument, match="send fewer"):
            collection.upsert(range(80), np.ones((80, D)), payloads)

    def test_arrays_that_come_back_may_be_written_to(self, fake: Fake, client_of: Opener) -> None:
        """They are the caller's own, not views of a message."""
        fake.methods["Search"] = lambda request, context: points_pb2.SearchReply(
            counts=[1],
            ids=types_pb2.Ids(i64=b"\1" + b"\0" * 7),
            scores=np.float32(0.5).tobytes(),
            payloads=types_pb2.Payloads(json=[b"{}"]),
            vectors=types_pb2.Matrix(data=VECTOR.tobytes(), dtype=types_pb2.F32, dim=D, count=1),
        )
        hits = client_of(fake.target).get_collection("c").search(VECTOR[0], with_vectors=True)
        for array in (hits.ids, hits.scores, hits.vectors):
            array += 1
        assert hits.ids.tolist() == [2]
