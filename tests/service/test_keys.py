"""The file of keys and the command line on it; what a running server makes of a change; TLS.

soardb_service/keys.py, cli.py, config.py -> [test_keys.py] -> a running server
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from soardb.errors import CorruptStorage, InvalidArgument, NotFound
from soardb_proto.v1 import admin_pb2
from soardb_service.cli import _expiry
from soardb_service.config import ServerConfig
from soardb_service.gate import Gate, Unauthenticated
from soardb_service.keys import KeyFile, as_grant
from tests.service.running import Running, added_key, metadata_of, outcome

INFO = admin_pb2.ServerInfoRequest()
SOON_S = 2.0  # a second is promised, and the machine may be busy


def soardb(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line."""
    command = [sys.executable, "-P", "-m", "soardb.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def becomes(claim: Callable[[], bool]) -> bool:
    """Whether a claim comes true soon."""
    end = time.monotonic() + SOON_S
    while time.monotonic() < end:
        if claim():
            return True
        time.sleep(0.05)
    return claim()


def code_with(server: Running, key: str | None) -> str:
    return outcome(server.call, "Admin/ServerInfo", INFO, key=key)[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "db"
    made.mkdir()
    return made


class TestFile:
    def test_it_holds_no_key_and_only_its_owner_reads_it(self, folder: Path) -> None:
        """Who reads a backup of it can do nothing with it."""
        text = added_key(folder, "words:read")
        file = folder / ".keys.json"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert text[14:] not in file.read_text("utf-8")

    def test_find_knows_each_key_and_nothing_near_it(self, folder: Path) -> None:
        """One character more, less or other is another key."""
        text = added_key(folder, "words:read")
        keys = KeyFile(folder / ".keys.json")
        found = keys.find(text)
        assert found is not None
        assert found.id == text[5:13]
        changed = [
            text[:i] + ("A" if c != "A" else "B") + text[i + 1 :] for i, c in enumerate(text)
        ]
        for near in (
            *changed,
            text[:-1],
            text + "A",
            "",
            " ",
            text + "\n",
            text * 100,
            "\u00e4" * 57,
        ):
            assert keys.find(near) is None, near

    def test_find_compares_in_constant_time_whatever_comes(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Exactly one comparison, of digests of one length: not a time, as those are noise here."""
        text = added_key(folder, "words:read")
        keys = KeyFile(folder / ".keys.json")
        seen: list[tuple[int, int]] = []

        def compare(a: str, b: str) -> bool:
            seen.append((len(a), len(b)))
            return a == b

        monkeypatch.setattr("soardb_service.keys.hmac.compare_digest", compare)
        for asked in (text, text[:-1] + "_", f"soar_00000000_{text[14:]}", "junk", ""):
            keys.find(asked)
        assert seen == [(64, 64)] * 5

    @pytest.mark.parametrize(
        "damage",
        [
            b"",
            b"{",
            b"\xff\xff",
            b"[]",
            b'{"format": 2, "keys": []}',
            b'{"format": 1, "keys": [{"id": "x"}]}',
            b'{"format": 1, "keys": [{"id": "00000000", "name": "n", "sha256": "0", "grants": '
            b'["a:owner"], "created": "2026-01-01T00:00:00Z", "expires": null}]}',
        ],
    )
    def test_a_damaged_file_refuses_everybody_until_it_is_mended(
        self, folder: Path, damage: bytes
    ) -> None:
        """Not for a moment are the old keys good, or none needed."""
        text = added_key(folder, "*:admin")
        file = folder / ".keys.json"
        good = file.read_bytes()
        keys = KeyFile(file)
        gate = Gate(keys, require_key=False)
        assert gate.known(None, text).grants
        file.write_bytes(damage)
        keys._looked = -1e9
        for _ in range(3):
            for key in (text, None):
                with pytest.raises(Unauthenticated):
                    gate.known(None, key)
            with pytest.raises(CorruptStorage):
                keys.keys()
        file.write_bytes(good)
        keys._looked = -1e9
        assert gate.known(None, text).grants

    def test_a_damaged_file_closes_an_open_door(self, folder: Path) -> None:
        """A first key that was written badly was meant to close it."""
        keys = KeyFile(folder / ".keys.json")
        gate = Gate(keys, require_key=False)
        assert gate.known(None, None).id == "anybody"
        (folder / ".keys.json").write_bytes(b"{")
        keys._looked = -1e9
        for _ in range(3):
            with pytest.raises(Unauthenticated):
                gate.known(None, None)

    def test_a_file_without_keys_keeps_the_door_shut(self, folder: Path) -> None:
        """Who revoked the last key did not mean to let everybody in at the next start."""
        text = added_key(folder, "*:admin")
        file = KeyFile(folder / ".keys.json")
        file.revoke(text[5:13])
        with pytest.raises(Unauthenticated):
            Gate(KeyFile(folder / ".keys.json"), require_key=False).known(None, None)

    def test_an_expired_key_is_none(self, folder: Path) -> None:
        """Named by its id, so that its owner can see which."""
        text = added_key(folder, "*:admin", expires=int(time.time() * 1e6) + 100_000)
        gate = Gate(KeyFile(folder / ".keys.json"), require_key=False)
        assert gate.known(None, text).id == text[5:13]
        time.sleep(0.15)
        with pytest.raises(Unauthenticated, match=f"{text[5:13]} has expired"):
            gate.known(None, text)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "words",
            "words:",
            ":read",
            "a/b:read",
            "a:read:b",
            "[a]:read",
            "?:read",
            "w:owner",
            "w\n:read",
        ],
    )
    def test_a_grant_of_another_form_is_refused(self, text: str) -> None:
        """A pattern knows * and nothing else that matches more than it says."""
        with pytest.raises(InvalidArgument):
            as_grant(text)

    @pytest.mark.parametrize(
        "text", ["x", "", "-1d", "1w", "99999999999d", "9999999d", "\u00b2d", "2020-13-01"]
    )
    def test_an_expiry_of_another_form_is_refused(self, text: str) -> None:
        """And not taken for never."""
        with pytest.raises(InvalidArgument):
            _expiry(text)

    def test_revoking_what_is_not_there_says_so(self, folder: Path) -> None:
        """Who mistypes an id believes a key to be gone that is not."""
        added_key(folder, "*:admin")
        with pytest.raises(NotFound, match="deadbeef"):
            KeyFile(folder / ".keys.json").revoke("deadbeef")


class TestCommands:
    def test_add_list_and_revoke(self, folder: Path) -> None:
        """The key is told once, on standard output alone, so that it can be piped."""
        made = soardb("keys", "add", str(folder), "--grant", "words:read", "--expires", "30d")
        assert made.returncode == 0, made.stderr
        text = made.stdout.strip()
        assert text.startswith("soar_")
        assert text[14:] not in made.stderr
        listed = soardb("keys", "list", str(folder), "--json")
        (row,) = json.loads(listed.stdout)
        assert row["id"] == text[5:13]
        assert row["grants"] == ["words:read"]
        assert row["expires"] is not None
        assert "sha256" not in row
        table = soardb("keys", "list", str(folder)).stdout
        assert text[14:] not in table
        assert soardb("keys", "revoke", str(folder), text[5:13]).returncode == 0
        assert json.loads(soardb("keys", "list", str(folder), "--json").stdout) == []
        again = soardb("keys", "revoke", str(folder), text[5:13])
        assert again.returncode != 0
        assert "Traceback" not in again.stderr


class TestRunningServer:
    def test_the_first_key_closes_the_door_and_changes_are_seen_soon(self, folder: Path) -> None:
        """Nobody restarts a server to lock it."""
        with Running(folder) as server:
            assert code_with(server, None) == "OK"
            assert httpx.get(f"{server.url}/v1/info").status_code == 200
            web = {"origin": "http://localhost:3000"}
            assert httpx.get(f"{server.url}/v1/info", headers=web).status_code == 400
            first = added_key(folder, "*:admin")
            assert becomes(lambda: code_with(server, None) == "UNAUTHENTICATED")
            assert httpx.get(f"{server.url}/v1/info").status_code == 401
            assert code_with(server, first) == "OK"
            second = added_key(folder, "words:read")
            assert becomes(lambda: code_with(server, second) == "OK")
            KeyFile(folder / ".keys.json").revoke(second[5:13])
            assert becomes(lambda: code_with(server, second) == "UNAUTHENTICATED")
            KeyFile(folder / ".keys.json").revoke(first[5:13])
            assert becomes(lambda: code_with(server, first) == "UNAUTHENTICATED")
            assert code_with(server, None) == "UNAUTHENTICATED"
            (folder / ".keys.json").unlink()
            time.sleep(1.0)
            assert code_with(server, None) == "UNAUTHENTICATED"

    def test_a_damaged_file_refuses_everybody_and_the_log_says_so(self, folder: Path) -> None:
        """Once, not with every call; the server lives on and sees when it is mended."""
        key = added_key(folder, "*:admin")
        file = folder / ".keys.json"
        good = file.read_bytes()
        with Running(folder) as server:
            assert code_with(server, key) == "OK"
            file.write_bytes(b"{")
            assert becomes(lambda: code_with(server, key) == "UNAUTHENTICATED")
            for _ in range(10):
                assert code_with(server, key) == "UNAUTHENTICATED"
                assert code_with(server, None) == "UNAUTHENTICATED"
                assert httpx.get(f"{server.url}/v1/info").status_code == 401
            assert httpx.get(f"{server.url}/healthz").status_code == 200
            assert server.log().count("keys cannot be read") == 1
            file.write_bytes(good)
            assert becomes(lambda: code_with(server, key) == "OK")

    def test_it_does_not_start_with_a_damaged_file(self, folder: Path) -> None:
        """Nobody could be let in, and nobody would know why."""
        (folder / ".keys.json").write_bytes(b"{")
        with pytest.raises(RuntimeError, match="not a file of keys"), Running(folder):
            pass

    def test_require_key_closes_the_door_before_there_is_one(self, folder: Path) -> None:
        """For who starts the server first and makes keys then."""
        with Running(folder, "--require-key") as server:
            assert code_with(server, None) == "UNAUTHENTICATED"


class TestExposure:
    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::]", "192.0.2.1", "example.org", ""])
    def test_beyond_loopback_it_wants_tls_and_a_key(self, folder: Path, host: str) -> None:
        """Hundreds of databases of this kind stand open on the internet by their defaults."""
        config = ServerConfig.of([str(folder), "--host", host])
        with pytest.raises(InvalidArgument, match=r"TLS .* and an API key .*--insecure"):
            config.check_exposure(has_keys=False)
        with pytest.raises(InvalidArgument, match="TLS"):
            config.check_exposure(has_keys=True)
        ServerConfig.of([str(folder), "--host", host, "--insecure"]).check_exposure(False)

    @pytest.mark.parametrize(
        "host", ["127.0.0.1", "127.9.9.9", "localhost", "::1", "[::1]", "unix:x"]
    )
    def test_loopback_is_free(self, folder: Path, host: str) -> None:
        """For trying it."""
        ServerConfig.of([str(folder), "--host", host]).check_exposure(has_keys=False)

    def test_the_command_says_what_to_do_and_ends(self, folder: Path) -> None:
        """Without a traceback."""
        done = soardb("serve", str(folder), "--host", "0.0.0.0", "--port", "0", "--rest-port", "-1")
        assert done.returncode != 0
        assert "--tls-certificate" in done.stderr
        assert "soardb keys add" in done.stderr
        assert "Traceback" not in done.stderr


class Certificates:
    """A root, a certificate of it for the server and one for a client, and another root's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        root, root_key = self._make("root", None)
        self._make("server", (root, root_key))
        self._make("client", (root, root_key))
        stranger, stranger_key = self._make("stranger-root", None)
        self._make("stranger", (stranger, stranger_key))

    def pem(self, name: str) -> Path:
        return self.folder / f"{name}.pem"

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def _make(
        self, name: str, issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None
    ) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        names: list[x509.GeneralName] = [
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        ]
        signing = key if issuer is None else issuer[1]
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if issuer is None else issuer[0].subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(issuer is None, None), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()),
                critical=False,
            )
            .sign(signing, hashes.SHA256())
        )
        self.pem(name).write_bytes(made.public_bytes(serialization.Encoding.PEM))
        self.key(name).write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return made, key


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module", params=["tls", "mtls"])
def secured(
    request: pytest.FixtureRequest,
    certificates: Certificates,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Running, Certificates, bool, str]]:
    """(server, certificates, whether it wants one of the client, key)"""
    folder = tmp_path_factory.mktemp(request.param) / "db"
    folder.mkdir()
    key = added_key(folder, "*:admin")
    flags = [
        *("--host", "0.0.0.0"),
        *("--tls-certificate", str(certificates.pem("server"))),
        *("--tls-key", str(certificates.key("server"))),
    ]
    if request.param == "mtls":
        flags += ["--tls-client-ca", str(certificates.pem("root"))]
    with Running(folder, *flags) as server:
        yield server, certificates, request.param == "mtls", key


class TestTls:
    def grpc_code(
        self, server: Running, key: str, credentials: grpc.ChannelCredentials | None
    ) -> str:
        address = f"localhost:{server.port}"
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel = (
            grpc.insecure_channel(address, options)
            if credentials is None
            else grpc.secure_channel(address, credentials, options)
        )
        with channel:
            ask: Any = channel.unary_unary("/soardb.v1.Admin/ServerInfo")
            return outcome(ask, b"", timeout=5, metadata=metadata_of(key))[0]

    def rest_code(self, server: Running, key: str, context: ssl.SSLContext | None) -> int:
        """The status, or 0 where there is no connection."""
        scheme = "http" if context is None else "https"
        url = f"{scheme}://localhost:{server.rest_port}/v1/info"
        try:
            with httpx.Client(verify=context or False, timeout=5) as client:
                return client.get(url, headers={"x-api-key": key}).status_code
        except httpx.HTTPError:
            return 0

    def test_grpc(self, secured: tuple[Running, Certificates, bool, str]) -> None:
        """Only who trusts the root, and under mTLS has a certificate of it, is heard."""
        server, files, is_mutual, key = secured
        root = files.pem("root").read_bytes()

        def with_(name: str) -> grpc.ChannelCredentials:
            return grpc.ssl_channel_credentials(
                root, files.key(name).read_bytes(), files.pem(name).read_bytes()
            )

        alone = grpc.ssl_channel_credentials(root)
        assert self.grpc_code(server, key, with_("client")) == "OK"
        assert self.grpc_code(server, key[:-1] + "_", with_("client")) == "UNAUTHENTICATED"
        assert self.grpc_code(server, key, alone) == ("UNAVAILABLE" if is_mutual else "OK")
        if is_mutual:
            assert self.grpc_code(server, key, with_("stranger")) == "UNAVAILABLE"
        assert self.grpc_code(server, key, None) == "UNAVAILABLE"
        stranger = grpc.ssl_channel_credentials(files.pem("stranger-root").read_bytes())
        assert self.grpc_code(server, key, stranger) == "UNAVAILABLE"

    def test_rest(self, secured: tuple[Running, Certificates, bool, str]) -> None:
        """The same over HTTP."""
        server, files, is_mutual, key = secured

        def context(name: str | None) -> ssl.SSLContext:
            made = ssl.create_default_context(cafile=files.pem("root"))
            if name is not None:
                made.load_cert_chain(files.pem(name), files.key(name))
            return made

        assert self.rest_code(server, key, context("client")) == 200
        assert self.rest_code(server, key[:-1] + "_", context("client")) == 401
        assert self.rest_code(server, key, context(None)) == (0 if is_mutual else 200)
        if is_mutual:
            assert self.rest_code(server, key, context("stranger")) == 0
        assert self.rest_code(server, key, None) == 0

    def test_halves_of_the_settings_are_refused(
        self, folder: Path, certificates: Certificates
    ) -> None:
        """A server that was meant to have TLS does not start without."""
        for flags in (
            ["--tls-certificate", str(certificates.pem("server"))],
            ["--tls-key", str(certificates.key("server"))],
            ["--tls-client-ca", str(certificates.pem("root"))],
        ):
            with pytest.raises(InvalidArgument, match="expected --tls-"):
                ServerConfig.of([str(folder), *flags]).check_exposure(has_keys=True)
