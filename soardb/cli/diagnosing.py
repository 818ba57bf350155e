"""`soardb ensemble` and `soardb diagnose`: predictions of replicas, and bias and variance in them.

commands.py -> [diagnosing.py] -> pipelines/diagnose

The first writes a file that the second reads; whoever has predictions needs the second alone.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from soardb.cli import tables
from soardb.errors import InvalidArgument

if TYPE_CHECKING:
    from soardb.pipelines.diagnose import Diagnosis, Fit

Name = Annotated[str, typer.Argument(metavar="COLLECTION", help="A collection or an alias.")]


class EstimatorName(StrEnum):
    """How bias and variance are estimated."""

    unbiased = "unbiased"
    plain = "plain"
    pairs = "pairs"


class RandomnessName(StrEnum):
    """What differs between replicas, beside initial weights and order."""

    init = "init"
    bootstrap = "bootstrap"
    halves = "halves"


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("ensemble")(ensemble)
    app.command("diagnose")(diagnose)


def ensemble(
    target: Annotated[
        str, typer.Argument(metavar="DIR", help="A database directory, or grpc://HOST:PORT.")
    ],
    collection: Name,
    label_field: Annotated[str, typer.Option(help="Payload field of the labels.")],
    to: Annotated[Path, typer.Option(help="Write predictions here: *.npz or *.parquet.")],
    where: Annotated[
        str | None, typer.Option("--filter", help='Only these: SQL, such as "n < 10".')
    ] = None,
    members: Annotated[int, typer.Option(min=2, help="Networks a fold.")] = 20,
    randomness: Annotated[
        RandomnessName, typer.Option(help="What differs beside initial weights and order.")
    ] = RandomnessName.init,
    width: Annotated[int, typer.Option(min=1, help="Of hidden layers.")] = 64,
    layers: Annotated[int, typer.Option(min=1, help="Affine maps, ReLU between.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Of training.")] = 400,
    folds: Annotated[int, typer.Option(min=2, help="Parts of the points, each held out.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of what is random.")] = 0,
) -> None:
    """Train small networks on stored points, each asked about points that it did not see."""
    from soardb.connect import connect
    from soardb.pipelines.diagnose import TrainConfig, of_collection, to_file
    from soardb.pipelines.diagnose.files import check_target

    check_target(to)
    config = TrainConfig(members, randomness.value, width, layers, steps, seed=seed)
    options = {} if "://" in target else {"read_only": True, "create": False}
    with connect(target, **options) as database, tables.bars() as progress:
        held = database.get_collection(collection)
        found = of_collection(
            held, label_field, config, folds=folds, filter=where, progress=progress
        )
    to_file(found, to)
    said = found.probabilities.argmax(axis=2)  # (m, n)
    tables.facts(
        f"{to.name}: {members} replicas in {folds} folds, {len(found):,} points, "
        f"{found.classes} classes",
        {
            "randomness": found.randomness,
            "accuracy of a replica": f"{(said == found.labels).mean():.4f}",
            "accuracy of the mean": f"{found.correct.mean():.4f}",
        },
    )


def diagnose(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="*.npz or *.parquet: logits or probabilities, labels."),
    ],
    target: Annotated[
        str | None,
        typer.Argument(metavar="DIR", help="A database directory, or grpc://HOST:PORT."),
    ] = None,
    collection: Annotated[
        str | None, typer.Argument(metavar="COLLECTION", help="The points with the file's ids.")
    ] = None,
    label_field: Annotated[
        str | None, typer.Option(help="Payload field of labels, where the file has none.")
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Set bias, variance and misaligned of the points.")
    ] = False,
    prefix: Annotated[str, typer.Option(help="Before the names of these fields.")] = "",
    estimator: Annotated[
        EstimatorName | None,
        typer.Option(
            help="pairs: replicas 0 and 1, 2 and 3, ... share a split; unless told so where the "
            "file says halves."
        ),
    ] = None,
    bootstrap: Annotated[int, typer.Option(min=0, help="Resamplings for intervals.")] = 1000,
    splits: Annotated[int, typer.Option(min=0, help="Halvings of the replicas.")] = 5,
    members: Annotated[
        list[int] | None, typer.Option(help="Fit the first m replicas too; may be repeated.")
    ] = None,
    cone: Annotated[
        float | None, typer.Option(help="C: count samples with variance above C bias^2.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Residual sd from the line that make a sample misaligned.")
    ] = 3.0,
    kl: Annotated[bool, typer.Option("--kl", help="The KL decomposition too.")] = False,
    floor: Annotated[
        float | None, typer.Option(help="Smallest probability in it; zeros are refused without.")
    ] = None,
    table: Annotated[Path | None, typer.Option(help="A row a sample, as *.parquet.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw alignment, cone and calibration as *.png, *.svg, ...")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Split the risk of each sample into bias and variance, and see whether they are aligned."""
    from soardb.connect import connect
    from soardb.pipelines.diagnose import DiagnoseConfig, of_file, run

    if target is not None and collection is None:
        raise InvalidArgument("expected a COLLECTION after DIR, got none")
    if (write or label_field is not None) and target is None:
        raise InvalidArgument("expected DIR and COLLECTION with --write or --label-field, got none")
    if table is not None and table.suffix != ".parquet":
        raise InvalidArgument(f"expected a file name ending in .parquet, got {table.name}")
    config = DiagnoseConfig(
        None if estimator is None else estimator.value,
        bootstrap,
        splits=splits,
        members=tuple(members or ()),
        cone=cone,
        tolerance=tolerance,
        kl=kl,
        floor=floor,
    )
    with ExitStack() as stack:
        held = None
        if target is not None and collection is not None:
            options: dict[str, Any] = {}
            if "://" not in target:
                options = {"read_only": not write, "create": False}
            database = stack.enter_context(connect(target, **options))
            held = database.get_collection(collection)
        found = run(of_file(file, held, label_field), config)
        if write:
            found.write_fields(held, prefix)
    _files(found, table, plot)
    if as_json:
        print(json.dumps(found.to_json(), allow_nan=False))
        return
    _show(file.name, found)


def _files(found: Diagnosis, table: Path | None, plot: Path | None) -> None:
    if table is not None:
        rows = found.to_arrow()
        import pyarrow.parquet as parquet

        parquet.write_table(rows, table)
        tables.note(f"{len(found):,} rows in {table}")
    if plot is not None:
        from soardb.pipelines.diagnose.plot import plot_diagnosis

        plot_diagnosis(found, plot)
        tables.note(f"plot in {plot}")


def _show(name: str, found: Diagnosis) -> None:
    calibration, parts = found.calibration, found.parts
    rows = {
        "risk": f"{parts.risk.mean():.5g} = bias^2 {parts.bias.mean():.5g}"
        f" + variance {parts.variance.mean():.5g}",
        **{group: _line(one) for group, one in found.fits.items()},
        **{f"split half {i}": _line(one) for i, one in enumerate(found.split_half, 1)},
        **{f"{m} replicas": _line(one) for m, one in found.by_members.items()},
        **{f"kl, {group}": _line(one) for group, one in (found.kl_fits or {}).items()},
    }
    if found.cone is not None:
        rows["variance / bias^2"] = (
            f"median {found.cone.median:.3g}, 99 % {found.cone.p99:.3g}, "
            f"largest {found.cone.largest:.3g}"
        )
        if found.cone.share_above is not None:
            rows[f"above {found.cone.bound:g}"] = f"{found.cone.share_above:.2%}"
    rows |= {
        "misaligned": f"{int(found.misaligned.sum()):,}",
        "ECE": f"{calibration.ece:.4f}, of a replica {calibration.member_ece:.4f}",
        "error": f"{calibration.ensemble_error:.4f}, of a replica {calibration.member_error:.4f}",
        "disagreement": f"{calibration.disagreement:.4f}",
    }
    tables.facts(
        f"{name}: {found.ensemble.members} replicas, {len(found):,} samples, "
        f"{found.ensemble.classes} classes; randomness: {found.ensemble.randomness}",
        rows,
    )


def _line(one: Fit | None) -> str:
    if one is None:
        return "no line: fewer than 3 points with bias and variance above 0"
    between = ""
    if one.slope_interval is not None:
        between = " ({:.3f}..{:.3f})".format(*one.slope_interval)
    return (
        f"slope {one.slope:.3f}{between}, intercept {one.intercept:.3f}, R^2 {one.r2:.3f}, "
        f"sd {one.residual_sd:.3f}, n {one.n:,}"
    )
