"""The command `soardb` of VectorDBBench: its common options, and those of this database.

run.py, or cli/vectordbbench.py of that project -> [cli.py] -> config.py
"""

from __future__ import annotations

from typing import Annotated, Any

import click
from pydantic import SecretStr
from vectordb_bench.backend.clients import DB
from vectordb_bench.cli.cli import (
    CommonTypedDict,
    cli,
    click_parameter_decorators_from_typed_dict,
    run,
)


class SoarDBTypedDict(CommonTypedDict):  # type: ignore[misc]  # VectorDBBench has no types
    """The options; those that are not given are left to the server."""

    uri: Annotated[
        str, click.option("--uri", default="grpc://127.0.0.1:7600", help="Where the server is")
    ]
    api_key: Annotated[
        str | None, click.option("--api-key", envvar="SOARDB_API_KEY", help="Key of the server")
    ]
    nlist: Annotated[int | None, click.option("--nlist", type=int, help="Partitions")]
    soar_lambda: Annotated[
        float | None, click.option("--soar-lambda", type=float, help="0 stores each vector once")
    ]
    nprobe: Annotated[int | None, click.option("--nprobe", type=int, help="Partitions visited")]
    rerank: Annotated[int | None, click.option("--rerank", type=int, help="Scored again exactly")]
    ack: Annotated[
        str,
        click.option(
            "--ack",
            type=click.Choice(["fsync", "logged", "memory"]),
            default="fsync",
            show_default=True,
            help="What a write waits for",
        ),
    ]


@cli.command(name="soardb")  # type: ignore[untyped-decorator]
@click_parameter_decorators_from_typed_dict(SoarDBTypedDict)  # type: ignore[untyped-decorator]
def SoarDB(**given: Any) -> None:  # noqa: N802  # as its neighbours
    """Benchmark a soardb server."""
    from .config import SoarDBConfig, SoarDBIndexConfig

    key = given["api_key"]
    run(
        db=DB.SoarDB,
        db_config=SoarDBConfig(
            db_label=given["db_label"],
            uri=given["uri"],
            api_key=None if key is None else SecretStr(key),
        ),
        db_case_config=SoarDBIndexConfig(
            **{name: given[name] for name in ("nlist", "soar_lambda", "nprobe", "rerank", "ack")}
        ),
        **given,
    )
