"""Bias and variance of small networks over their width: are the two aligned, and by what?

    scikit-learn's digits, soardb.pipelines.diagnose -> [bench_diagnose.py] -> diagnose_report.py

For each seed the pictures are dealt into a training and a test set, and forty replicas of a network
are trained on the former, for each width and each kind of randomness. Of the test pictures bias and
variance are taken apart; the report has the line through those that the ensemble gets right, and
what keeps one from believing it too soon: lines from disjoint replicas and from few of them, narrow
networks, ones that are stopped early, wrong pictures, the KL version. Beside it stands what the
model of neural collapse predicts.

    python -m benchmarks.bench_diagnose
    python -m benchmarks.bench_diagnose --tiny

Each ensemble is written to a journal beside the data sets when it is measured: a run that was
stopped goes on where it was. A report is of whole seeds alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import provenance
from benchmarks.diagnose_report import CELL, figures, plot, summary, table
from benchmarks.environment import cache_folder, need
from benchmarks.journal import Journal
from benchmarks.reports import header, written
from soardb.errors import SoarError
from soardb.kernels.layout import F32, I64
from soardb.pipelines import diagnose
from soardb.pipelines.diagnose.stability import by_members

__all__ = ["Cell", "Setup", "cells", "main", "measured"]

RESULTS = Path(__file__).resolve().parent / "results"
EXTRA = "bench-diagnose"
_EARLY = 60  # steps of training that is stopped early


@dataclass(frozen=True)
class Setup:
    """What one run measures. widths: trained by init alone; data_widths: the other kinds too."""

    dataset: str
    train: int
    test: int
    seeds: int
    members: int = 40
    steps: int = 400
    widths: tuple[int, ...] = (2, 4, 8, 16, 32, 64, 128, 256)
    data_widths: tuple[int, ...] = (16, 64, 256)
    early_width: int = 128
    counts: tuple[int, ...] = (4, 6, 10, 20, 40)


DIGITS = Setup("digits", train=900, test=897, seeds=5)
TINY = Setup(
    "made-up", 200, 150, seeds=2, members=8, steps=60,
    widths=(2, 16), data_widths=(16,), early_width=16, counts=(4, 8),
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """An ensemble to train and to measure."""

    randomness: str
    width: int
    steps: int


def cells(setup: Setup) -> Iterator[Cell]:
    """The width sweep, the training that is stopped early, then the other kinds of randomness."""
    for width in setup.widths:
        yield Cell("init", width, setup.steps)
    yield Cell("init", setup.early_width, min(_EARLY, setup.steps // 2))
    for randomness in ("bootstrap", "halves"):
        for width in setup.data_widths:
            yield Cell(randomness, width, setup.steps)


def load(name: str) -> tuple[F32, I64]:
    """(n, d) features and (n,) classes."""
    if name == "digits":
        found = need("sklearn.datasets", EXTRA).load_digits()
        return (found.data / 16).astype(np.float32), found.target.astype(np.int64)
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 3, 400)
    points = 2 * rng.standard_normal((3, 5))[kinds] + rng.standard_normal((400, 5))
    return points.astype(np.float32), kinds


def measured(setup: Setup, cell: Cell, seed: int) -> dict[str, Any]:
    """One ensemble, trained and diagnosed: plain values."""
    features, classes = load(setup.dataset)
    order = np.random.default_rng(seed).permutation(len(classes))
    train, test = order[: setup.train], order[setup.train : setup.train + setup.test]
    config = diagnose.TrainConfig(
        setup.members,
        cell.randomness,  # type: ignore[arg-type]
        width=cell.width,
        steps=cell.steps,
        seed=seed,
    )
    began = time.process_time()
    replicas = diagnose.Replicas(config).fit(features[train], classes[train])
    trained = time.process_time()
    ensemble = diagnose.Ensemble.of_logits(
        replicas.logits(features[test]), replicas.codes(classes[test]), randomness=config.told
    )
    pairs = cell.randomness == "halves"
    found = diagnose.run(
        ensemble,
        diagnose.DiagnoseConfig(
            "pairs" if pairs else "unbiased", members=setup.counts, kl=True, cone=1.0, seed=seed
        ),
    )
    wrong = ~found.correct
    row = {
        "seed": seed,
        **asdict(cell),
        **{
            name: value
            for name, value in found.to_json().items()
            if name not in ("config", "seconds", "misaligned", "randomness")
        },
        "plain_by_members": {
            str(count): None if one is None else one.to_json()
            for count, one in by_members(
                ensemble, found.correct, setup.counts, "plain", bootstrap=0
            ).items()
        },
        "wrong_ratio": _ratio(found, wrong) if wrong.any() else None,
        "train_cpu_s": trained - began,
        "diagnose_cpu_s": time.process_time() - trained,
    }
    if seed == 0 and cell in _drawn(setup):
        row["samples"] = {
            "bias": [float(f"{x:.4g}") for x in found.parts.bias],
            "variance": [float(f"{x:.4g}") for x in found.parts.variance],
            "correct": found.correct.astype(int).tolist(),
        }
    return row


def _drawn(setup: Setup) -> list[Cell]:
    """The cells whose samples are in the picture: small networks, and the widest."""
    small = 4 if 4 in setup.widths else setup.widths[0]
    return [Cell("init", width, setup.steps) for width in (small, setup.widths[-1])]


def _ratio(found: diagnose.Diagnosis, mask: Any) -> float:
    return float(np.median(found.parts.variance[mask] / found.parts.bias[mask]))


def run(setup: Setup, journal: Journal) -> Iterator[int]:
    """Measure whatever is not in the journal; yields how many seeds are whole, after each."""
    need("torch", EXTRA).set_num_threads(1)
    for seed in range(setup.seeds):
        for cell in cells(setup):
            if journal.has(seed=seed, **asdict(cell)):
                continue
            row = measured(setup, cell, seed)
            journal.add(row)
            line = row["fits"]["correct"]
            print(
                f"seed {seed}  {cell.randomness:<9} width {cell.width:>3}, {cell.steps} steps: "
                f"slope {line['slope']:.3f}, R^2 {line['r2']:.3f}, {row['train_cpu_s']:.1f} s",
                flush=True,
            )
        yield seed + 1


@cache
def collapse() -> dict[str, Any]:
    """Slopes that neural collapse predicts, of ten classes over the scale."""
    scales = tuple(np.linspace(0, 12, 25).tolist())
    found: dict[str, Any] = {}
    for noise, scale in (("gumbel", 1.0), ("normal", 1.0), ("normal", 0.5)):
        config = diagnose.CollapseConfig(
            scales=scales,
            noise=noise,  # type: ignore[arg-type]
            noise_scale=scale,
        )
        found[f"{noise}, {scale:g}"] = diagnose.simulate(config).to_json()
    return found


def _told(row: Mapping[str, Any]) -> dict[str, Any]:
    """What of a row of the journal is in the report."""
    names = ("seed", *CELL, "samples")
    short = {
        name: None if value is None else float(f"{value:.6g}")
        for name, value in figures(row).items()
    }
    return {**{name: row[name] for name in names if name in row}, "figures": short}


def _write(setup: Setup, rows: Sequence[Mapping[str, Any]], commit: str, stem: Path) -> None:
    seeds = len({row["seed"] for row in rows})
    told = list(map(_told, rows))
    report = {
        **header("diagnose", commit, setup, ("torch", "numpy")),
        "seeds": seeds,
        "summary": summary(told),
        "collapse": collapse(),
        "rows": told,
    }
    plain = json.loads(json.dumps(report))
    plot(plain, stem.with_suffix(".png"))
    written(plain, table, stem, seeds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write JSON, table and plot after each seed: exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_diagnose", description=__doc__
    )
    parser.add_argument("--tiny", action="store_true", help="a few points, to see that it runs")
    parser.add_argument("--seeds", type=int, help="how many, others than usual")
    parser.add_argument("--journal", type=Path, help="of what is measured; beside the data sets")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    setup = TINY if given.tiny else DIGITS
    if given.seeds is not None:
        setup = replace(setup, seeds=given.seeds)
    name = f"diagnose-{'tiny' if given.tiny else setup.dataset}"
    commit = provenance.commit()  # of what runs, not of what the checkout becomes meanwhile
    try:
        path = given.journal or cache_folder() / f"{name}.jsonl"
        journal = Journal(path, {**asdict(setup), "seeds": 0})  # more seeds may follow
        for whole in run(setup, journal):
            rows = [row for row in journal.rows if row["seed"] < whole]
            _write(setup, rows, commit, given.results / name)
    except SoarError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
