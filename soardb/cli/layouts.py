"""The command that chooses the options of an index by measuring: `soardb layout`.

commands.py -> [layouts.py] -> index/layout.py, tables.py
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from soardb.cli import tables
from soardb.curve import DEFAULT_TARGET
from soardb.errors import NotFound

if TYPE_CHECKING:
    from soardb.index.plan import Choice

_CORES = os.cpu_count() or 1


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("layout")(layout)


def layout(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT", help="Vectors: .npy, .fvecs, .fbin, or an .hdf5 of ann-benchmarks."
        ),
    ],
    metric: Annotated[str, typer.Option(help="Closeness: cosine, dot or l2.")] = "cosine",
    k: Annotated[int, typer.Option("--k", "-k", help="Neighbours a query.", min=1)] = 10,
    target_recall: Annotated[
        float, typer.Option(help="Share of the true neighbours to find.", min=0, max=1)
    ] = DEFAULT_TARGET,
    sample: Annotated[
        int | None, typer.Option(help="Points of the sample; 50,000 unless given.", min=1_000)
    ] = None,
    nlist: Annotated[int | None, typer.Option(help="Stays at this.", min=0)] = None,
    soar_lambda: Annotated[float | None, typer.Option(help="Stays at this.", min=0)] = None,
    dims_per_block: Annotated[int | None, typer.Option(help="Stays at this.", min=1)] = None,
    avq_eta: Annotated[float | None, typer.Option(help="Stays at this.", min=0)] = None,
    seed: Annotated[int, typer.Option(help="Same seed and data, same layout.", min=0)] = 0,
    threads: Annotated[int, typer.Option(help="Threads of the builds.", min=1)] = _CORES,
    plot: Annotated[
        Path | None, typer.Option(help="Write cost and bytes of each as *.png, *.svg, ...")
    ] = None,
    out: Annotated[Path | None, typer.Option("--json", help="Write all of it here.")] = None,
) -> None:
    """Choose nlist, dims_per_block, avq_eta and soar_lambda by measuring on a sample."""
    from soardb.index.layout import SAMPLE, choose_layout
    from soardb.vectors_io import read_vectors

    for file in (plot, out):
        if file is not None and not file.absolute().parent.is_dir():
            raise NotFound(f"expected the folder {file.parent} to exist; make it first")
    vectors = read_vectors(source)
    with tables.bars() as progress:
        found = choose_layout(
            vectors,
            metric,
            k=k,
            target_recall=target_recall,
            sample=SAMPLE if sample is None else sample,
            progress=progress,
            nlist=nlist,
            soar_lambda=soar_lambda,
            dims_per_block=dims_per_block,
            avq_eta=avq_eta,
            seed=seed,
            threads=threads,
        )
    if found.tried:
        tables.layouts(
            found.tried,
            found.choice,
            f"{source.name}: recall@{k} of {target_recall:g}, {found.questions:,} questions of a "
            f"sample of {found.sample:,}; work foreseen for {found.n:,}",
        )
    if found.confirmed:
        tables.layouts(found.confirmed, found.choice, "the formulas' and the best, asked anew")
    tables.facts("options", {**found.options, "because": found.reason})
    if plot is not None and found.tried:
        from soardb.evaluate import plot_layouts

        plot_layouts(
            {_name(t.choice): (t.bytes, t.cost_us) for t in found.tried if t.is_reached},
            plot,
            title=source.stem,
            marked=_name(found.choice),
        )
        tables.note(f"plot in {plot}")
    if out is not None:
        out.write_text(json.dumps(found.to_json(), indent=1) + "\n", "utf-8")
        tables.note(f"saved to {out}")


def _name(choice: Choice) -> str:
    return (
        f"{choice.nlist} lists, {choice.dims_per_block} dims, soar {choice.soar_lambda:g}, "
        f"avq {choice.avq_eta:g}"
    )
