"""`soardb serve` and `soardb keys`: options in, a server or a changed file of keys out.

    soardb/cli, __main__.py -> [cli.py] -> config.py, server.py, keys.py

`serve` takes its options from the model in config.py. `keys` works on the file, beside a running
server too, which sees the change within a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from soardb.errors import InvalidArgument
from soardb.schema import iso_of, micros_of

__all__ = ["keys", "serve_main"]

keys = typer.Typer(
    help="Make, list and revoke API keys of a server's directory.", no_args_is_help=True
)

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A database directory.")]
File = Annotated[
    Path | None, typer.Option("--keys-file", help="Instead of .keys.json in the directory.")
]


def serve_main(arguments: list[str]) -> int:
    """Run a server until it is told to end. Errors: those of soardb."""
    from soardb_service.config import ServerConfig

    config = ServerConfig.of(arguments)
    with _shared_metrics(config.readers > 0):
        from soardb_service.observe import set_up_logs
        from soardb_service.server import serve

        set_up_logs(config.log_level, config.log_format)
        serve(config)
    return 0


@contextlib.contextmanager
def _shared_metrics(is_shared: bool) -> Iterator[None]:
    """Let the metrics of several processes be summed; before prometheus_client is loaded."""
    if not is_shared:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="soardb-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        yield


_LATEST = micros_of("9999-01-01T00:00:00Z")


def _file_of(directory: Path, keys_file: Path | None) -> Path:
    if directory.exists() and not directory.is_dir():
        raise InvalidArgument(f"expected a directory, {directory} is a file")
    return keys_file or directory / ".keys.json"


def _expiry(text: str | None) -> int | None:
    """Microseconds since 1970 of `30d`, `12h`, `45m` or an ISO 8601 moment."""
    if text is None:
        return None
    units = {"d": "days", "h": "hours", "m": "minutes"}
    if text.isascii() and text[:-1].isdigit() and text[-1] in units:
        if len(text) > 8:
            raise InvalidArgument(f"expected --expires within 9,999,999 units, got {text[:80]!r}")
        span = timedelta(**{units[text[-1]]: int(text[:-1])})
        found = int((time.time() + span.total_seconds()) * 1e6)
        if found >= _LATEST:
            raise InvalidArgument(f"expected --expires before the year 9999, got {text!r}")
        return found
    try:
        return micros_of(text)
    except ValueError as error:
        raise InvalidArgument(
            f"expected --expires as 30d, 12h, 45m or an ISO 8601 moment, got {text!r}: {error}"
        ) from None


@keys.command("add")
def add(
    directory: Directory,
    grant: Annotated[
        list[str] | None,
        typer.Option(
            help="PATTERN:SCOPE, such as words:read or 'news-*:write'; scopes are read, write and "
            "admin, each holding the ones before. Repeat for more. '*:admin' unless told."
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "unnamed",
    expires: Annotated[
        str | None, typer.Option(help="30d, 12h, 45m, or a moment in ISO 8601; never unless told.")
    ] = None,
    keys_file: File = None,
) -> None:
    """Make a key and print it, this once: only its hash is kept."""
    from soardb_service.keys import KeyFile, as_grant

    grants = [as_grant(text) for text in grant or ["*:admin"]]
    key, text = KeyFile(_file_of(directory, keys_file)).add(name, grants, _expiry(expires))
    print(text)
    print(
        f"key {key.id} for {', '.join(grant or ['*:admin'])}; it is not shown again",
        file=sys.stderr,
    )


@keys.command("list")
def list_(
    directory: Directory,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON array.")] = False,
    keys_file: File = None,
) -> None:
    """Show the keys there are, without their secrets."""
    from rich.console import Console
    from rich.table import Table

    from soardb_service.keys import KeyFile

    found = list(KeyFile(_file_of(directory, keys_file)).keys().values())
    rows = [{k: v for k, v in key.to_json().items() if k != "sha256"} for key in found]
    if as_json:
        print(json.dumps(rows))
        return
    table = Table("id", "name", "grants", "created", "expires")
    for key, row in zip(found, rows, strict=True):
        expires = "never" if key.expires is None else iso_of(key.expires)
        if key.is_expired():
            expires += " (over)"
        table.add_row(key.id, key.name, ", ".join(row["grants"]), row["created"], expires)
    Console().print(table)


@keys.command("revoke")
def revoke(
    directory: Directory,
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `soardb keys list` shows it.")],
    keys_file: File = None,
) -> None:
    """Remove a key; a running server refuses it within a second."""
    from soardb_service.keys import KeyFile

    key = KeyFile(_file_of(directory, keys_file)).revoke(key_id)
    print(f"revoked {key.id} ({key.name})", file=sys.stderr)
