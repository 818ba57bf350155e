"""The command line: `soardb demo | build | search | info | bench`.

    soardb.cli:main -> [cli.py] -> demo, index, evaluate, vectors_io

Reads options, calls the engine, prints tables. An error of soardb, or of the file system, ends as
one red line and exit code 2; an interrupt ends with 130. Whatever is slow to load is imported
inside the command that needs it, so that help comes at once. Nothing is computed here.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from soardb.errors import InvalidArgument, SoarError

if TYPE_CHECKING:
    from soardb.demo import Report
    from soardb.evaluate import CurvePoint
    from soardb.index.base import Index

EXIT_ERROR = 2

app = typer.Typer(
    name="soardb",
    help="Vector search around a SOAR index: build one, search it, measure it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_out = Console()
_err = Console(stderr=True)


class MetricName(StrEnum):
    """How closeness is measured."""

    cosine = "cosine"
    dot = "dot"
    l2 = "l2"


Metric = Annotated[MetricName, typer.Option(help="How closeness is measured.")]
Nlist = Annotated[
    int | None, typer.Option(min=1, help="Partitions; by default chosen from the data.")
]
SoarLambda = Annotated[
    float | None,
    typer.Option(min=0, help="Weight of the SOAR spilling; 0 stores each vector once."),
]
DimsPerBlock = Annotated[
    int | None, typer.Option(min=1, help="Dimensions a 4-bit code stands for.")
]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same data: same index.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads for building and for batches.")]
K = Annotated[int, typer.Option("--k", "-k", min=1, help="Neighbours a query.")]
Rerank = Annotated[
    int | None, typer.Option(min=1, help="Candidates scored again from finer copies.")
]


def main() -> None:
    """Run the command line; the entry point of the `soardb` program."""
    try:
        app()
    except (SoarError, OSError) as error:
        line = " ".join(str(error).split())
        _err.print(Text(f"error: {line}", style="red"), soft_wrap=True)
        sys.exit(EXIT_ERROR)
