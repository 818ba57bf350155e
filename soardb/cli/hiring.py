"""`soardb models hire`: what a cheap copy of a model's head is worth on texts.

commands.py -> [hiring.py] -> soardb/models, pipelines/hire_lm
"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from soardb.cli import models, tables

__all__ = ["register"]


def register(program: typer.Typer) -> None:
    """Add the command to those of models."""
    program.command()(hire)


def hire(
    directory: models.Directory,
    name: models.Name,
    texts: models.Texts,
    bits: Annotated[
        int | None, typer.Option(help="Of a value of the copy, 8 or 4; 4 unless there is a rank.")
    ] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="Dimensions of the copy instead.")] = None,
    trained: Annotated[
        int, typer.Option(min=0, help="Steps by which a rank's factors learn from the texts.")
    ] = 0,
    turned: Annotated[
        bool, typer.Option(help="Of bits: even coordinates out before rounding.")
    ] = True,
    k: Annotated[int, typer.Option(min=1, help="Likeliest tokens that are wanted.")] = 8,
    recall: Annotated[float, typer.Option(help="Share of them to find.")] = 0.99,
    windows: Annotated[int, typer.Option(min=3, help="Of 64 tokens, at most.")] = 96,
    as_json: models.Json = False,
) -> None:
    """Calibrate HiRE on a model's head; report recall on other texts, and bytes a token."""
    from soardb.models.training import row_of
    from soardb.pipelines.hire_lm import Copy, HireConfig, fitted

    found = models.registry_of(directory).load(name)
    bits = 4 if bits is None and rank is None else bits
    copied = Copy(bits=bits, rank=rank, trained=trained, turned=turned and rank is None)
    row = row_of(models.lines_of(texts), found.tokens)
    window = min(64, max(2, len(row) // (3 * 8)))
    _, report = fitted(found.model, row, HireConfig(copied, k, recall, window, windows))
    if as_json:
        print(json.dumps(report.to_json()))
        return
    tables.facts(
        f"the head of {name}, {report.copy}",
        {
            "head": f"{report.vocabulary:,} x {report.width}",
            "predicted": f"{report.predicted:,} for the likeliest {report.k}",
            "recall": f"{report.recall:.4f} on {report.judged:,} other states, "
            f"{report.calibrated_recall:.4f} where it was calibrated",
            "likeliest token found": f"{report.same_first:.4f}",
            "bytes a token": f"{report.copy_bytes + report.row_bytes:,} of {report.dense_bytes:,}",
            "speed-up by bytes": f"{report.speedup:.2f}",
        },
    )
