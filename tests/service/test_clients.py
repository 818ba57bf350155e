"""The clients against a real server that dies, asks for keys and speaks TLS.

conftest.py (a server as a process) -> [test_clients.py] -> soardb_client
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import soardb
from soardb.errors import Closed, NotAllowed, Unavailable
from soardb_client import Client
from tests.service.conftest import Served, opened
from tests.service.running import added_key

D = 8
VECTORS = np.random.default_rng(3).normal(size=(400, D)).astype(np.float32)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Served]:
    """A server of this test alone, which it may kill."""
    with Served(tmp_path / "db") as server:
        yield server


class TestDying:
    @pytest.mark.parametrize("mode", ["upsert", "insert"])
    def test_an_ingest_goes_on_after_the_server_was_killed(
        self, own: Served, kind: str, loop: asyncio.AbstractEventLoop, mode: Any
    ) -> None:
        """Every batch is there, once, also those whose acknowledgement was lost."""

        def batches() -> Iterator[Any]:
            for i in range(40):
                if i in (15, 30):
                    own.stop(signal.SIGKILL)
                    own.start()
                yield range(i * 10, i * 10 + 10), VECTORS[i * 10 : i * 10 + 10]

        with opened(own.target, kind, loop) as client:
            collection = client.create_collection("c", D)
            assert collection.ingest(batches(), mode) == 400
            assert len(collection) == 400
            points = collection.get(range(400), with_vectors=True)
        assert (np.stack([point.vector for point in points]) == VECTORS).all()

    def test_calls_bridge_a_restart(self, own: Served, kind: str, loop: Any) -> None:
        """A handle outlives its server; between the two there is Unavailable."""
        with opened(own.target, kind, loop) as client:
            collection = client.create_collection("c", D)
            collection.upsert([1], VECTORS[:1])
            own.stop()
            with pytest.raises(Unavailable, match="soardb serve"):
                collection.count(timeout=1)
            own.start()
            assert collection.count() == 1
            assert collection.upsert([2], VECTORS[:1]) == 1

    def test_an_operation_may_be_cancelled(self, own: Served, kind: str, loop: Any) -> None:
        """wait() says so; one that has ended stays as it ended."""
        with opened(own.target, kind, loop) as client:
            collection = client.create_collection("c", D)
            many = np.random.default_rng(0).normal(size=(8_000, D))
            collection.ingest([(range(8_000), many)])
            operation = collection.start_compact(retrain=True)
            operation.cancel()
            try:
                operation.wait()
                assert operation.state == "succeeded"
            except Closed as error:
                assert "cancelled" in str(error)  # noqa: PT017
                assert operation.refresh().state == "cancelled"
            assert collection.start_compact().wait()["points"] == 8_000


class TestAnother:
    def test_a_handle_belongs_to_one_collection(self, own: Served, kind: str, loop: Any) -> None:
        """Dropped and made again by another client, it is another: the old handle says so."""
        with opened(own.target, kind, loop) as client, Client(own.target) as other:
            old = client.create_collection("c", D)
            old.upsert(range(100), VECTORS[:100])
            other.drop_collection("c")
            new = other.create_collection("c", D)
            new.upsert([1], VECTORS[:1])
            with pytest.raises(Closed, match="dropped"):
                old.count()
            again = client.get_collection("c")
            assert (again.count(), again.id) == (1, new.id)
            assert again.id != old.id


class TestKeys:
    def test_a_key_is_asked_for_and_has_its_limits(
        self, tmp_path: Path, kind: str, loop: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """NotAllowed without one, and for what it may not do."""
        folder = tmp_path / "db"
        soardb.connect(folder).close()
        everything, reader = added_key(folder, "*:admin"), added_key(folder, "a*:read")
        with Served(folder) as server:
            with Client(server.target, api_key=everything) as client:
                client.create_collection("ab", D).upsert([1], VECTORS[:1])
                client.create_collection("b", D)
            with opened(server.target, kind, loop) as client, pytest.raises(NotAllowed):
                client.list_collections()
            monkeypatch.setenv("SOARDB_API_KEY", reader)
            with opened(server.target, kind, loop) as client:
                assert client.list_collections() == ["ab"]
                collection = client.get_collection("ab")
                assert collection.count() == 1
                asks: list[Callable[[], Any]] = [
                    lambda: collection.upsert([2], VECTORS[:1]),
                    lambda: collection.ingest([([2], VECTORS[:1])]),
                    lambda: client.get_collection("b"),
                    lambda: client.drop_collection("ab"),
                ]
                for ask in asks:
                    with pytest.raises(NotAllowed):
                        ask()
                (grant,) = client.server_info().grants
                assert (grant.collections, grant.scope) == ("a*", "read")


def certificate(folder: Path, name: str, issuer: Any = None) -> Any:
    """A key and a certificate of this name, signed by an issuer or by itself, as PEM files."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer, signed_by = (key, subject) if issuer is None else issuer
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signed_by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(signer, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / f"{name}.pem").write_bytes(built.public_bytes(pem))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return key, subject


class TestTls:
    def test_both_sides_show_a_certificate(self, tmp_path: Path) -> None:
        """The server to every client, and a client where the server wants one."""
        ca = certificate(tmp_path, "ca")
        for name in ("server", "client"):
            certificate(tmp_path, name, ca)
        certificate(tmp_path, "stranger")
        flags = [
            *("--tls-certificate", str(tmp_path / "server.pem")),
            *("--tls-key", str(tmp_path / "server.key")),
            *("--tls-client-ca", str(tmp_path / "ca.pem")),
        ]
        with Served(tmp_path / "db", *flags) as server:
            target = server.target.replace("grpc:", "grpcs:")
            mine: dict[str, Any] = {
                "certificate": tmp_path / "client.pem",
                "private_key": tmp_path / "client.key",
            }
            with Client(target, ca=tmp_path / "ca.pem", **mine) as client:
                assert client.server_info().is_writer
            wrong: list[dict[str, Any]] = [
                {"ca": tmp_path / "ca.pem"},
                {"ca": tmp_path / "stranger.pem", **mine},
                mine,
            ]
            for options in wrong:
                with (
                    Client(target, retries=0, **options) as client,
                    pytest.raises(Unavailable, match="TLS"),
                ):
                    client.server_info(timeout=5)
