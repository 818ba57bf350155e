"""What selected points are worth to who trains on them: accuracy by method and budget.

    datasets.py, soardb.pipelines.select -> [bench_select_training.py] -> results/select-training-*

The protocol of single-shot subset selection, small. For each seed a pool is drawn; a coarse network
is trained on a random tenth of it, the only labels that any method may use. The activations of its
last hidden layer are the embeddings, compared by angle; its softmax gives the margins. Each method
selects 5 to 90 % of the pool, a fresh network is trained on these points, from the same
initialisation and for equally many steps whatever was selected, and is asked about pictures that
are in no pool. Every radius_weight that is tried is reported.

    python -m benchmarks.bench_select_training digits
    python -m benchmarks.bench_select_training clothes-784-euclidean
    python -m benchmarks.bench_select_training --tiny

Each training is written to a journal beside the data sets when it ends: a run that was stopped goes
on where it was. A report is of whole seeds alone.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import datasets, provenance
from benchmarks.environment import cache_folder, need
from benchmarks.journal import Journal
from benchmarks.reports import header, written
from soardb.errors import SoarError
from soardb.kernels.layout import F32, I64
from soardb.pipelines import select
from soardb.pipelines.select.baselines import facility_location
from soardb.pipelines.select.gonzalez import gonzalez
from soardb.pipelines.select.space import Space, radius_of, space_of

__all__ = ["Images", "Setup", "main", "summary", "table"]

F64 = npt.NDArray[np.float64]

RESULTS = Path(__file__).resolve().parent / "results"
EXTRA = "bench-select"
CLASSES = 10
_WIDTH, _BATCH, _RATE = 64, 64, 2e-3
_COARSE = 0.1  # share of the pool whose labels the coarse network sees
RANDOM = "random"


@dataclass(frozen=True)
class Setup:
    """What one run measures. steps: of every training; budgets: shares of the pool."""

    dataset: str
    pool: int
    test: int
    seeds: int
    steps: int
    budgets: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.6, 0.9)
    radius_weights: tuple[float, ...] = (0.1, 1.0, 10.0)


SETUPS = {
    "digits": Setup("digits", pool=1200, test=597, seeds=10, steps=300),
    "clothes-784-euclidean": Setup(
        "clothes-784-euclidean", pool=10_000, test=10_000, seeds=5, steps=500
    ),
}
TINY = Setup("digits", 500, 100, 2, 200, budgets=(0.1, 0.5), radius_weights=(1.0,))


@dataclass(frozen=True)
class Images:
    """(n, 1, side, side) float32 pixels, 0 to 1, and (n,) int64 classes."""

    pixels: F32
    classes: I64

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows: I64) -> Images:
        return Images(self.pixels[rows], self.classes[rows])


@dataclass(frozen=True)
class Pool:
    """What methods select from: a space and weights, rows as in the pool."""

    embeddings: F32
    weights: F64
    seed: int


def load(name: str) -> tuple[Images, Images | None]:
    """Pictures to draw pools from; and those to test with, None where they are drawn too."""
    if name == "digits":
        found = need("sklearn.datasets", EXTRA).load_digits()
        pixels = (found.images / 16).astype(np.float32)[:, None]
        return Images(pixels, found.target.astype(np.int64)), None
    data = datasets.load(name)
    assert data.labels is not None
    assert data.test_labels is not None
    side = round(data.train.shape[1] ** 0.5)

    def images(vectors: F32, labels: npt.NDArray[np.object_]) -> Images:
        pixels = np.divide(vectors.reshape(-1, 1, side, side), 255, dtype=np.float32)
        return Images(pixels, labels.astype(np.int64))

    return images(data.train, data.labels), images(data.test, data.test_labels)


def drawn(setup: Setup, seed: int) -> tuple[Images, Images]:
    """The pool and the test pictures of one seed, none in both."""
    some, test = load(setup.dataset)
    rows = np.random.default_rng(seed).permutation(len(some))
    if test is None:
        test = some[rows[setup.pool : setup.pool + setup.test]]
    return some[rows[: setup.pool]], test[np.arange(min(setup.test, len(test)))]


# --- networks -----------------------------------------------------------------------------------


def network(side: int, seed: int) -> Any:
    """Two convolutions and a hidden layer: a body, whose output is the embedding, and a head."""
    torch = need("torch", EXTRA)
    torch.manual_seed(seed)
    nn = torch.nn
    deep = -(-side // 4)  # each convolution halves the side, rounding up
    body = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * deep * deep, _WIDTH),
        nn.ReLU(),
    )
    return nn.Sequential(body, nn.Linear(_WIDTH, CLASSES))


def trained(images: Images, steps: int, seed: int) -> Any:
    """A network after so many steps of Adam over shuffled passes, the rate falling to zero."""
    torch = need("torch", EXTRA)
    torch.set_num_threads(1)
    model = network(images.pixels.shape[-1], seed)
    adam = torch.optim.Adam(model.parameters(), lr=_RATE)
    falling = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, total_iters=steps)
    pixels, classes = torch.from_numpy(images.pixels), torch.from_numpy(images.classes)
    rng = np.random.default_rng(seed)
    order: I64 = np.empty(0, np.int64)
    for _ in range(steps):
        while len(order) < _BATCH:
            order = np.concatenate([order, rng.permutation(len(images))])
        rows, order = torch.from_numpy(order[:_BATCH]), order[_BATCH:]
        loss = torch.nn.functional.cross_entropy(model(pixels[rows]), classes[rows])
        adam.zero_grad()
        loss.backward()
        adam.step()
        falling.step()
    return model


def asked(model: Any, images: Images) -> tuple[F32, F32]:
    """(n, width) embeddings and (n, classes) logits."""
    torch = need("torch", EXTRA)
    with torch.inference_mode():
        parts = [
            model[0](torch.from_numpy(images.pixels[first : first + 1000]))
            for first in range(0, len(images), 1000)
        ]
        embeddings = torch.cat(parts)
        return embeddings.numpy(), model[1](embeddings).numpy()


def accuracy(model: Any, images: Images) -> float:
    """Share of the pictures whose class is the likeliest."""
    return float((asked(model, images)[1].argmax(axis=1) == images.classes).mean())


# --- selections ---------------------------------------------------------------------------------


def pool_of(images: Images, setup: Setup, seed: int) -> tuple[Pool, float]:
    """Embeddings and margins by the coarse network, and its share of right answers in the pool."""
    few = np.random.default_rng([seed, 1]).permutation(len(images))
    model = trained(images[few[: round(_COARSE * len(images))]], setup.steps, seed)
    embeddings, logits = asked(model, images)
    right = float((logits.argmax(axis=1) == images.classes).mean())
    return Pool(embeddings, select.weights_of(select.softmax(logits)), seed), right


def selections(pool: Pool, setup: Setup) -> Iterator[tuple[str, float, Callable[[], I64]]]:
    """Method, budget, and how to select so: rows of the pool. What is nested is made once."""
    n = len(pool.weights)
    order = np.argsort(pool.weights, kind="stable")
    most = round(max(setup.budgets) * n)
    nested: dict[str, Callable[[], I64]] = {
        RANDOM: lambda: np.random.default_rng([pool.seed, 2]).permutation(n),
        "margin": lambda: order,
        "k-center": lambda: order[gonzalez(_space(pool, order), most)[0]],
        "facility location": lambda: order[facility_location(_space(pool, order), most)],
    }
    made: dict[str, I64] = {}

    def first(name: str, k: int) -> I64:
        if name not in made:
            made[name] = nested[name]()
        return made[name][:k]

    def by(config: select.SelectConfig) -> I64:
        return select.run(pool.embeddings, config, weights=pool.weights).rows

    for share in setup.budgets:
        k = round(share * n)
        plain = select.SelectConfig(k, metric="cosine", threads=1)
        for name in nested:
            yield name, share, partial(first, name, k)
        yield "GIST", share, partial(by, replace(plain, method="gist"))
        for weight in setup.radius_weights:
            yield f"weighted, {weight:g}", share, partial(by, replace(plain, radius_weight=weight))


def _space(pool: Pool, order: I64) -> Space:
    return space_of(pool.embeddings, order, "cosine")


def measured(pool: Pool, rows: I64) -> dict[str, float]:
    """Radius in radians and mean weight of selected rows."""
    space = _space(pool, np.arange(len(pool.weights)))
    return {
        "radius": radius_of(space, space.points(rows))[0],
        "mean_weight": float(pool.weights[rows].mean()),
    }


# --- the run ------------------------------------------------------------------------------------


def run(setup: Setup, journal: Journal) -> Iterator[int]:
    """Train whatever is not in the journal; yields how many seeds are whole, after each."""
    methods = len(setup.radius_weights) + 5
    for seed in range(setup.seeds):
        done = sum(row["seed"] == seed for row in journal.rows)
        if done < methods * len(setup.budgets):
            _one_seed(setup, seed, journal)
        yield seed + 1


def _one_seed(setup: Setup, seed: int, journal: Journal) -> None:
    images, test = drawn(setup, seed)
    pool, coarse = pool_of(images, setup, seed)
    for method, budget, choose in selections(pool, setup):
        if journal.has(seed=seed, method=method, budget=budget):
            continue
        began = time.process_time()
        rows = choose()
        selected = time.process_time()
        reached = accuracy(trained(images[rows], setup.steps, seed), test)
        row = {
            "seed": seed,
            "method": method,
            "budget": budget,
            "k": len(rows),
            "accuracy": reached,
            "coarse_accuracy": coarse,
            **measured(pool, rows),
            "select_cpu_s": selected - began,
            "train_cpu_s": time.process_time() - selected,
        }
        journal.add(row)
        print(
            f"seed {seed}  {budget:>4.0%}  {method:<18} accuracy {reached:.4f}  radius "
            f"{row['radius']:.3f}  mean margin {row['mean_weight']:.3f}  selected in "
            f"{row['select_cpu_s']:.1f} s, trained in {row['train_cpu_s']:.1f} s",
            flush=True,
        )


# --- the report ---------------------------------------------------------------------------------


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half of the 95 % confidence interval of it, by Student's t."""
    n = len(values)
    if n < 2:
        return float(np.mean(values)), float("nan")
    t = float(need("scipy.stats", EXTRA).t.ppf(0.975, n - 1))
    return float(np.mean(values)), t * float(np.std(values, ddof=1)) / n**0.5


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each method and budget: accuracy and its difference to random, seed by seed."""
    cells: dict[tuple[str, float], dict[int, Mapping[str, Any]]] = {}
    for row in rows:
        cells.setdefault((row["method"], row["budget"]), {})[row["seed"]] = row
    found = []
    for (method, budget), of_seeds in cells.items():
        base = cells[RANDOM, budget]
        mean, half = interval([row["accuracy"] for row in of_seeds.values()])
        gain, gain_half = interval(
            [row["accuracy"] - base[seed]["accuracy"] for seed, row in of_seeds.items()]
        )
        found.append(
            {
                "method": method,
                "budget": budget,
                "k": next(iter(of_seeds.values()))["k"],
                "seeds": len(of_seeds),
                "accuracy": mean,
                "accuracy_ci95": half,
                "over_random": gain,
                "over_random_ci95": gain_half,
                "radius": float(np.mean([row["radius"] for row in of_seeds.values()])),
                "mean_weight": float(np.mean([row["mean_weight"] for row in of_seeds.values()])),
            }
        )
    return found


def table(report: Mapping[str, Any]) -> str:
    """Markdown: accuracy in percent by method and budget, then the differences to random."""
    cells = {(row["method"], row["budget"]): row for row in report["summary"]}
    methods = list(dict.fromkeys(method for method, _ in cells))
    budgets = list(dict.fromkeys(budget for _, budget in cells))
    setup, seeds = report["setup"], report["seeds"]
    header = ["method", *(f"{budget:.0%}" for budget in budgets)]
    rule = ["---", *["---:"] * len(budgets)]

    def lines(mean: str, half: str, sign: str, which: Sequence[str]) -> list[str]:
        body = [
            [m, *(f"{100 * cells[m, b][mean]:{sign}.2f} ± {100 * cells[m, b][half]:.2f}"
                  for b in budgets)]
            for m in which
        ]  # fmt: skip
        return ["| " + " | ".join(row) + " |" for row in [header, rule, *body]]

    return "\n".join(
        [
            f"{setup['dataset']}: accuracy in percent on pictures outside the pool of "
            f"{setup['pool']:,}, mean of {seeds} seeds ± 95 % confidence, {setup['steps']} steps "
            f"each. The coarse network saw a tenth of the pool and is right on "
            f'{report["coarse_accuracy"]:.1%} of it. "weighted, x": weighted k-center at '
            "radius_weight x.",
            "",
            *lines("accuracy", "accuracy_ci95", "", methods),
            "",
            "Difference to random, by seed:",
            "",
            *lines("over_random", "over_random_ci95", "+", [m for m in methods if m != RANDOM]),
            "",
        ]
    )


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Two panels: accuracy over budget, and the difference to random, with their intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5), layout="constrained")
    panels = figure.subplots(1, 2)
    methods = list(dict.fromkeys(row["method"] for row in report["summary"]))
    for number, method in enumerate(methods):
        rows = [row for row in report["summary"] if row["method"] == method]
        # Apart from each other, so that intervals do not lie on top of each other.
        x = [100 * row["budget"] * 1.012 ** (number - len(methods) / 2) for row in rows]
        style: dict[str, Any] = {"marker": "o", "ms": 4, "lw": 1.4, "capsize": 2}
        style["linestyle"] = "-" if method.startswith("weighted") else "--"
        style["color"] = f"C{number}"
        for axes, value in zip(panels, ("accuracy", "over_random"), strict=True):
            y, half = ([100 * row[key] for row in rows] for key in (value, f"{value}_ci95"))
            axes.errorbar(x, y, half, label=method, **style)
    ticks = sorted({100 * row["budget"] for row in report["summary"]})
    for axes, name in zip(panels, ("accuracy, %", "difference to random, points"), strict=True):
        axes.set(xscale="log", xlabel="share of the pool, %", ylabel=name)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.grid(visible=True, color="0.9")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].legend(fontsize=8)
    setup = report["setup"]
    figure.suptitle(
        f"{setup['dataset']}, pool of {setup['pool']:,}, {report['seeds']} seeds, 95 % confidence",
        fontsize=9,
        color="0.35",
    )
    figure.savefig(path, dpi=140)


def _write(setup: Setup, rows: Sequence[Mapping[str, Any]], commit: str, stem: Path) -> None:
    seeds = len({row["seed"] for row in rows})
    report = {
        **header("select-training", commit, setup, ("torch", "sklearn", "numpy")),
        "seeds": seeds,
        "coarse_accuracy": float(np.mean([row["coarse_accuracy"] for row in rows])),
        "summary": summary(rows),
        "rows": list(rows),
    }
    plot(report, stem.with_suffix(".png"))
    written(report, table, stem, seeds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write JSON, table and plot after each seed: exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_select_training", description=__doc__
    )
    parser.add_argument("dataset", nargs="?", default="digits", choices=SETUPS)
    parser.add_argument("--tiny", action="store_true", help="a few pictures, to see that it runs")
    parser.add_argument("--seeds", type=int, help="how many, others than usual")
    parser.add_argument("--journal", type=Path, help="of finished trainings; beside the data sets")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    setup = TINY if given.tiny else SETUPS[given.dataset]
    if given.seeds is not None:
        setup = replace(setup, seeds=given.seeds)
    name = f"select-training-{'tiny' if given.tiny else setup.dataset}"
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
