"""Tables and figures of an existing report, made anew: after a change of how they are drawn.

    results/*.json -> [redraw.py] -> what plots.py, ingest_report.py and service_report.py write

Nothing here draws: each of these says what it makes of its own report.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from soardb.errors import InvalidArgument

__all__ = ["redraw"]


def redraw(
    module: str,
    bench: str,
    write: Callable[[Mapping[str, Any], Path], list[Path]],
    arguments: Sequence[str] | None,
) -> None:
    """`python -m benchmarks.<module> REPORT.json`, a report of `bench`: write(report, stem).

    Errors: InvalidArgument for a file of another ending.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{module}")
    parser.add_argument("report", type=Path, help=f"a JSON file of {bench}")
    path = parser.parse_args(arguments).report
    if path.suffix != ".json":
        raise InvalidArgument(f"expected a .json report of {bench}, got {path}")
    for written in write(json.loads(path.read_text()), path.with_suffix("")):
        print(written)
