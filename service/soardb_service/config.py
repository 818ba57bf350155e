"""What can be set about a server: by flags, the environment or a file, in this order of weight.

    flags > SOARDB_SERVE_* > the file of --config (TOML) > the defaults here -> [config.py]

One model is all of it: `soardb serve --help` is made from it. Secrets are not among it: keys stand
hashed in a file of their own, and private keys of TLS are named by their paths.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    CliPositionalArg,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from soardb.errors import InvalidArgument
from soardb_service.limits import Limits

__all__ = ["OutsideModel", "ServerConfig"]

_DEFAULTS = Limits()


class OutsideModel(BaseModel):
    """A language model behind a server that speaks the OpenAI protocol.

    url       up to where /completions follows; model: its name there
    key_file  a file with the key and nothing else; or key_env, a variable of the environment
    endpoint  "completions", or "chat"
    timeout_s seconds of one request
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    model: str
    key_file: Path | None = None
    key_env: str | None = None
    endpoint: Literal["completions", "chat"] = "completions"
    timeout_s: Annotated[float, Field(gt=0)] = 120.0

    @model_validator(mode="after")
    def _has_its_key(self) -> OutsideModel:
        if self.key_file is not None and self.key_env is not None:
            raise ValueError("expected one of key_file and key_env, both are told")
        if self.key_file is not None and not self.key_file.is_file():
            raise ValueError(f"there is no file {self.key_file}")
        if self.key_env is not None and not os.environ.get(self.key_env):
            raise ValueError(f"the environment has no variable {self.key_env}")
        if not self.url.startswith(("http://", "https://")):
            raise ValueError("expected a url as http://HOST:PORT/v1 or https://...")
        return self

    def key(self) -> str | None:
        """As it is now; None where none is told. Errors: OSError."""
        if self.key_file is not None:
            return self.key_file.read_text("utf-8").strip()
        return None if self.key_env is None else os.environ.get(self.key_env)


class ServerConfig(BaseSettings):
    """Serve a database directory, or a cluster on Ray, over gRPC and REST."""

    model_config = SettingsConfigDict(
        env_prefix="SOARDB_SERVE_",
        cli_prog_name="soardb serve",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        extra="forbid",
        frozen=True,
    )

    directory: CliPositionalArg[Path] = Field(description="The database directory; made if absent.")
    config: Path | None = Field(None, description="A TOML file of these settings.")
    host: str = Field("127.0.0.1", description="Address to listen on, or unix:PATH.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        7600, description="gRPC port; 0 chooses a free one."
    )
    rest_port: Annotated[int, Field(ge=-1, le=65535)] = Field(
        7601, description="REST port; 0 chooses a free one, -1 serves no REST."
    )
    metrics_port: Annotated[int, Field(ge=-1, le=65535)] = Field(
        -1, description="Prometheus port, always on loopback and for nothing else; -1 is off."
    )
    ready_file: Path | None = Field(
        None, description="Written once the server answers: JSON with its ports and process id."
    )

    ray: str | None = Field(
        None,
        description="Serve a cluster in place of a database: ray://auto, or ray://HOST:PORT. The "
        "directory then is for keys.",
    )
    storage: str | None = Field(
        None,
        description="With --ray: a folder that all nodes reach, or a URI such as s3://bucket/a; "
        "the directory unless told.",
    )
    shards: Annotated[int, Field(ge=1)] | None = Field(
        None, description="With --ray: how many, when the cluster is made."
    )
    data: Path | None = Field(
        None, description="With --ray: the folder of each node for its shards; storage unless told."
    )

    tls_certificate: Path | None = Field(None, description="PEM file of the certificate chain.")
    tls_key: Path | None = Field(None, description="PEM file of its private key.")
    tls_client_ca: Path | None = Field(
        None, description="PEM file of roots: clients must have a certificate of these (mTLS)."
    )
    keys_file: Path | None = Field(
        None, description="API keys, see `soardb keys`; .keys.json of the directory unless told."
    )
    require_key: bool = Field(
        False, description="Refuse every call without a key, even where no key was made yet."
    )
    insecure: bool = Field(
        False, description="Listen beyond loopback without TLS or keys, at your own risk."
    )

    memory_limit: Annotated[int, Field(ge=2**20)] | None = Field(
        None, description="Bytes for builds, writes and searches."
    )
    allow_network: bool = Field(False, description="Open a directory on a network file system.")
    readers: Annotated[int, Field(ge=0, le=256)] = Field(
        0, description="Reading processes beside the writing one, on the same port."
    )
    threads: Annotated[int, Field(ge=1, le=1024)] = Field(
        16, description="Calls that are worked on at once, searches and streams apart."
    )
    search_threads: Annotated[int, Field(ge=1, le=1024)] = Field(
        max(2, os.cpu_count() or 2),
        description="Of searches, which have threads of their own: more than cores help nobody.",
    )
    waiting: Annotated[int, Field(ge=0)] = Field(
        512, description="Calls that may wait for a thread; more are refused as OVERLOADED."
    )
    batching: bool = Field(
        True, description="Search for concurrent single queries together when there is a queue."
    )
    batch_slots: Annotated[int, Field(ge=1, le=256)] = Field(
        max(2, os.cpu_count() or 2),
        description="Searches of single queries that run at once; with fewer than "
        "--search-threads, those that wait are searched together.",
    )
    drain_s: Annotated[float, Field(ge=0)] = Field(
        30.0, description="Seconds that calls have to finish after SIGTERM."
    )
    default_timeout_s: Annotated[float, Field(gt=0)] = Field(
        60.0, description="Seconds for a call that came without a deadline."
    )
    stall_s: Annotated[float, Field(gt=0)] = Field(
        60.0, description="Seconds for a client to send a request, or to take part of a reply."
    )
    idle_s: Annotated[float, Field(gt=0)] = Field(
        600.0, description="Seconds after which an idle connection is closed."
    )

    max_message_bytes: Annotated[int, Field(ge=2**10, lt=2**31)] = _DEFAULTS.message_bytes
    max_json_bytes: Annotated[int, Field(ge=2**10, lt=2**31)] = Field(
        16 * 2**20, description="One JSON body over REST, which takes many times that to read."
    )
    max_rows: Annotated[int, Field(ge=1)] = _DEFAULTS.rows
    max_queries: Annotated[int, Field(ge=1)] = _DEFAULTS.queries
    max_results: Annotated[int, Field(ge=1)] = _DEFAULTS.results
    max_limit: Annotated[int, Field(ge=1, le=_DEFAULTS.limit)] = _DEFAULTS.limit
    max_page_size: Annotated[int, Field(ge=1, le=_DEFAULTS.page_size)] = _DEFAULTS.page_size
    max_streams: Annotated[int, Field(ge=1, le=1024)] = _DEFAULTS.streams
    ingest_window: Annotated[int, Field(ge=1, le=1024)] = _DEFAULTS.ingest_window
    max_model_bytes: Annotated[int, Field(ge=2**10)] = Field(
        8 * 2**30, description="Files of one language model that is uploaded."
    )
    models_loaded: Annotated[int, Field(ge=2, le=64)] = Field(
        4, description="Language models in memory at once; the one that was used last goes last."
    )
    llm: dict[str, OutsideModel] = Field(
        default_factory=dict,
        description="Language models that Agent.Ask may use beside those of the registry, by name, "
        "as JSON or in the file: [llm.NAME] with url, model, key_file or key_env, endpoint.",
    )
    rate: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Calls a second of one key, in a process; no limit unless told."
    )

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "text"] = "text"
    log_calls: bool = Field(False, description="One log line for every call.")
    slow_ms: Annotated[float, Field(gt=0)] | None = Field(
        500.0, description="Log calls that took longer, with their plan."
    )
    traces: str | None = Field(
        None, description="OTLP endpoint for traces, such as http://127.0.0.1:4317."
    )
    reflection: bool = Field(True, description="Serve gRPC reflection, to those with a key.")

    @field_validator("directory")
    @classmethod
    def _is_no_file(cls, value: Path) -> Path:
        if value.exists() and not value.is_dir():
            raise ValueError(f"expected a directory, {value} is a file")
        return value

    @field_validator("tls_certificate", "tls_key", "tls_client_ca", "config")
    @classmethod
    def _is_file(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError(f"there is no file {value}")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then the environment, then what `of` read from the file."""
        return env_settings, init_settings

    @classmethod
    def of(cls, arguments: list[str]) -> ServerConfig:
        """The settings of a command line. Errors: InvalidArgument, naming the setting."""
        try:
            first = _Flags(cls, arguments)
            file = first().get("config") or first.env().get("config")
            given = {} if file is None else _read(Path(str(file)))
            make: Any = cls  # pydantic takes the source of flags by a name of its own
            made: ServerConfig = make(_cli_settings_source=first.source, **given)
            return made
        except ValidationError as error:
            lines = [
                f"{'.'.join(map(str, item['loc']))}: {item['msg']}"
                # Of a model nothing is told again: it may be a key that was put in a wrong place.
                + ("" if item["loc"][:1] == ("llm",) else f", got {item.get('input')!r}")
                for item in error.errors()
            ]
            raise InvalidArgument(
                "expected other settings; " + "; ".join(lines) + ". See soardb serve --help"
            ) from None

    @property
    def limits(self) -> Limits:
        """What one call may hold."""
        return Limits(
            message_bytes=self.max_message_bytes,
            rows=self.max_rows,
            queries=self.max_queries,
            results=self.max_results,
            limit=self.max_limit,
            page_size=self.max_page_size,
            streams=self.max_streams,
            ingest_window=self.ingest_window,
        )

    @property
    def place(self) -> str:
        """What is served: the directory, or the storage of a cluster, which may be a URI."""
        if self.storage is None:
            return str(self.directory.resolve())
        return self.storage if "://" in self.storage else str(Path(self.storage).absolute())

    @property
    def keys_path(self) -> Path:
        """The file of keys."""
        return self.keys_file or self.directory / ".keys.json"

    @property
    def address(self) -> str:
        """Where gRPC listens, as grpc wants it. Errors: InvalidArgument for an unknown host."""
        if self.host.startswith("unix:"):
            return self.host
        host = self.host.strip("[]")
        try:
            socket.getaddrinfo(host, self.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise InvalidArgument(
                f"expected --host as an address of this machine, got {self.host!r}: {error}"
            ) from None
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def check_tls(self) -> None:
        """Refuse files that are no certificate with its key. Errors: InvalidArgument."""
        if self.tls_certificate is None or self.tls_key is None:
            return
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.tls_certificate, self.tls_key)
            if self.tls_client_ca is not None:
                context.load_verify_locations(self.tls_client_ca)
        except OSError as error:  # an SSLError is one
            raise InvalidArgument(
                "expected PEM files of a certificate, of its own key without a passphrase, and of "
                f"the roots of clients, got {self.tls_certificate}, {self.tls_key} and "
                f"{self.tls_client_ca}: {error}"
            ) from None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.host.startswith("unix:") or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    def check_cluster(self) -> None:
        """Refuse what only a cluster has without one, and what it has not."""
        if self.ray is None:
            told = [n for n in ("storage", "shards", "data") if getattr(self, n) is not None]
            if told:
                raise InvalidArgument(f"expected --ray beside --{told[0]}, got none")
        elif self.readers:
            raise InvalidArgument(
                f"expected no --readers with --ray, got {self.readers}: start more servers, of "
                "which any number may stand before one cluster"
            )

    def check_exposure(self, has_keys: bool) -> None:
        """Refuse an open door: beyond loopback it takes TLS and a key, or --insecure."""
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise InvalidArgument(
                "expected --tls-certificate and --tls-key together, got one of them"
            )
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise InvalidArgument("expected --tls-certificate and --tls-key beside --tls-client-ca")
        if self.is_loopback or self.insecure:
            return
        missing = []
        if self.tls_certificate is None:
            missing.append("TLS (--tls-certificate and --tls-key)")
        if not has_keys:
            missing.append(f"an API key (soardb keys add {self.directory})")
        if missing:
            raise InvalidArgument(
                f"expected {' and '.join(missing)} to listen on {self.host}, which other machines "
                "can reach; or listen on 127.0.0.1, or pass --insecure at your own risk"
            )


class _Flags:
    """The flags and the environment apart from the model, to find the file that they name."""

    def __init__(self, cls: type[ServerConfig], arguments: list[str]) -> None:
        self.source: CliSettingsSource[Any] = CliSettingsSource(cls, cli_parse_args=arguments)
        self._cls = cls

    def __call__(self) -> dict[str, Any]:
        return self.source()

    def env(self) -> dict[str, Any]:
        from pydantic_settings import EnvSettingsSource

        return EnvSettingsSource(self._cls)()


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InvalidArgument(f"expected a TOML file at {path}, found none") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"expected {path} to be TOML: {error}") from None
