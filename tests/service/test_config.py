"""Settings: flags over environment over file over defaults, and nothing unknown.

    soardb_service/config.py -> [test_config.py]

The model is the only list of settings; help, file and environment are made from it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from soardb.errors import InvalidArgument
from soardb_service.config import ServerConfig
from soardb_service.limits import Limits


class TestSources:
    def test_flags_weigh_more_than_the_environment_and_that_more_than_the_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """So one call can differ without a file being edited."""
        file = tmp_path / "soardb.toml"
        file.write_text("port = 1\nrest_port = 1\nthreads = 5\n")
        monkeypatch.setenv("SOARDB_SERVE_PORT", "2")
        monkeypatch.setenv("SOARDB_SERVE_REST_PORT", "2")
        config = ServerConfig.of(["data", "--config", str(file), "--port", "3"])
        assert (config.port, config.rest_port, config.threads) == (3, 2, 5)

    def test_the_file_may_be_named_by_the_environment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As containers do."""
        file = tmp_path / "soardb.toml"
        file.write_text("port = 4\n")
        monkeypatch.setenv("SOARDB_SERVE_CONFIG", str(file))
        assert ServerConfig.of(["data"]).port == 4

    @pytest.mark.parametrize(
        ("text", "said"),
        [("prot = 1", "prot"), ("port = 'x'", "port"), ("port = ", "TOML"), ("port = -1", "port")],
    )
    def test_a_file_with_a_mistake_is_refused_by_name(
        self, tmp_path: Path, text: str, said: str
    ) -> None:
        """A setting that is silently ignored would be found when it matters."""
        file = tmp_path / "soardb.toml"
        file.write_text(text)
        with pytest.raises(InvalidArgument, match=said):
            ServerConfig.of(["data", "--config", str(file)])

    @pytest.mark.parametrize(
        "arguments",
        [["data", "--port", "70000"], ["data", "--threads", "0"], ["data", "--tls-key", "nowhere"]],
    )
    def test_a_flag_with_a_mistake_is_refused_by_name(self, arguments: list[str]) -> None:
        """The message says which, and what came."""
        with pytest.raises(InvalidArgument, match=arguments[1][2:].replace("-", "_")):
            ServerConfig.of(arguments)

    def test_caps_become_limits(self) -> None:
        """Every cap has its flag."""
        arguments = [
            f"--{name.replace('_', '-')}={value}"
            for name, value in {
                "max_message_bytes": 2048, "max_rows": 2, "max_queries": 3, "max_results": 4,
                "max_limit": 5, "max_page_size": 6, "max_streams": 7, "ingest_window": 8,
            }.items()
        ]  # fmt: skip
        assert ServerConfig.of(["data", *arguments]).limits == Limits(2048, 2, 3, 4, 5, 6, 7, 8)


class TestPlaces:
    @pytest.mark.parametrize(
        ("host", "address"),
        [
            ("127.0.0.1", "127.0.0.1:7"),
            ("::1", "[::1]:7"),
            ("[::1]", "[::1]:7"),
            ("unix:x", "unix:x"),
        ],
    )
    def test_an_address_is_one_that_grpc_reads(self, host: str, address: str) -> None:
        """An address of IPv6 has colons of its own."""
        assert ServerConfig.of(["data", "--host", host, "--port", "7"]).address == address

    def test_a_host_that_there_is_not_is_told_by_name(self) -> None:
        """Before it is called a port that is not free."""
        with pytest.raises(InvalidArgument, match="300.1.1.1"):
            _ = ServerConfig.of(["data", "--host", "300.1.1.1"]).address

    def test_a_file_is_no_database(self, tmp_path: Path) -> None:
        """And no traceback of keys that could not be read."""
        file = tmp_path / "file"
        file.touch()
        with pytest.raises(InvalidArgument, match="expected a directory"):
            ServerConfig.of([str(file)])

    def test_a_certificate_that_is_none_is_told_by_name(self, tmp_path: Path) -> None:
        """Not as a port that is not free."""
        file = tmp_path / "file.pem"
        file.write_text("no certificate")
        arguments = ["data", "--tls-certificate", str(file), "--tls-key", str(file)]
        with pytest.raises(InvalidArgument, match="PEM"):
            ServerConfig.of(arguments).check_tls()


class TestExposure:
    @pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
    def test_loopback_needs_nothing(self, host: str) -> None:
        """A first try works with no key and no certificate."""
        ServerConfig.of(["data", "--host", host]).check_exposure(has_keys=False)

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", "localhost.evil"])
    def test_another_address_needs_tls_and_a_key(self, host: str) -> None:
        """Or the word of the operator."""
        config = ServerConfig.of(["data", "--host", host])
        for has_keys in (False, True):
            with pytest.raises(InvalidArgument, match="TLS"):
                config.check_exposure(has_keys)
        ServerConfig.of(["data", "--host", host, "--insecure"]).check_exposure(has_keys=False)


class TestOutsideModels:
    @pytest.mark.parametrize(
        ("told", "said"),
        [
            ('url = "x"\nmodel = "m"', "http://HOST:PORT"),
            ('url = "http://x"', "llm.a.model"),
            ('url = "http://x"\nmodel = "m"\nkey_file = "nowhere"', "no file nowhere"),
            ('url = "http://x"\nmodel = "m"\nkey_env = "NO_SUCH"', "no variable NO_SUCH"),
            ('url = "http://x"\nmodel = "m"\nkey_env = "A"\nkey_file = "b"', "one of key_file"),
            ('url = "http://x"\nmodel = "m"\nendpoint = "b"', "llm.a.endpoint"),
            ('url = "http://x"\nmodel = "m"\nkey = "sk-secret"', "llm.a.key"),
        ],
    )
    def test_a_mistake_is_told_and_nothing_that_may_be_a_key(
        self, tmp_path: Path, told: str, said: str
    ) -> None:
        """A message ends in logs."""
        file = tmp_path / "soardb.toml"
        file.write_text(f"[llm.a]\n{told}\n")
        with pytest.raises(InvalidArgument, match=said) as raised:
            ServerConfig.of(["data", "--config", str(file)])
        assert "secret" not in str(raised.value)

    def test_keys_are_read_where_they_are(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """From a file as it is then, or the environment; a setting holds none."""
        (tmp_path / "key").write_text("one\n")
        monkeypatch.setenv("A_KEY", "two")
        file = tmp_path / "soardb.toml"
        base = 'url = "http://x/v1"\nmodel = "m"\n'
        file.write_text(
            f'[llm.a]\n{base}key_file = "{tmp_path / "key"}"\n[llm.b]\n{base}key_env = "A_KEY"\n'
            f"[llm.c]\n{base}"
        )
        found = ServerConfig.of(["data", "--config", str(file)]).llm
        (tmp_path / "key").write_text("changed")
        assert [found[name].key() for name in "abc"] == ["changed", "two", None]
        assert "two" not in str(found)
