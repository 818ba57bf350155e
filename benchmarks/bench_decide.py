"""Which decision is best for which metric: depths of nouns by neighbours and by a transformer.

    depths.py, depth_reader.py, soardb.pipelines.decide -> [bench_decide.py] -> results/decide.*

For each seed glosses are dealt anew: most to train on, some to fit decisions on (temperature and
controls), some to test with. The laws over the depths 0..18 come from the neighbours of a gloss in
a collection, and from a small transformer that was trained on the same glosses: its scores of all
depths, with the end, and its samples. Every rule is judged by every metric. Then the transformer is
trained on with more cross entropy, with RAFT and with the loss that RAFT is compared to.

    python -m benchmarks.bench_decide
    python -m benchmarks.bench_decide --tiny

What a seed makes is kept beside the data sets; a run that was stopped goes on behind the last whole
seed. Intervals are over all questions of all seeds, by a paired bootstrap.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import soardb
from benchmarks import depth_reader, depths, provenance
from benchmarks.depth_reader import END, ReaderSetup, Vocabulary, answer, depth_of
from benchmarks.depths import DEEPEST, Depths
from benchmarks.environment import cache_folder, need
from benchmarks.reports import header, written
from soardb.errors import SoarError
from soardb.pipelines import decide
from soardb.pipelines.decide import Laws, rules
from soardb.pipelines.decide.plot import plot_comparison, plot_sweep

__all__ = ["DEEP", "Setup", "main", "report_of", "table"]

F64 = npt.NDArray[np.float64]
Arrays = dict[str, npt.NDArray[Any]]

RESULTS = Path(__file__).resolve().parent / "results"
GRID = list(range(DEEPEST + 1))
DEEP = 10
"""From which depth on a noun is deep: the class of F1 and AUC."""


@dataclass(frozen=True)
class Setup:
    """What one run measures. fit, test: questions; words: of these, how many ask for a word."""

    name: str = "decide"
    fit: int = 4000
    test: int = 6000
    train: int | None = None
    words: int = 2000
    neighbours: int = 64
    samples: int = 32
    reader: ReaderSetup = field(default_factory=ReaderSetup)


TINY = Setup(
    "decide-tiny", 100, 100, 600, 30, 16, 8,
    ReaderSetup(words=50, longest=8, width=32, layers=1, heads=2, steps=150, rate=1e-2,
                tune_steps=9),
)  # fmt: skip

_OFF_BY_MORE_THAN_ONE = (np.abs(np.subtract.outer(GRID, GRID)) > 1).astype(np.float64)
WITHIN_ONE = replace(
    decide.cost(_OFF_BY_MORE_THAN_ONE, GRID),
    name="off_by_more_than_one",
    losses=lambda y, v: (np.abs(y - v) > 1).astype(np.float64),  # of any number, such as a mean
)
METRICS: dict[Any, str] = {
    "exact_match": "mode",
    "rmse": "mean",
    "absolute_error": "median",
    "pinball:0.9": "0.9 quantile",
    "squared_log_error": "mean of logs",
    WITHIN_ONE: "within one",
    "pearson": "mean",
    "ranking": "mean",
}
ORDERS = ("pearson", "ranking", "auc:True")
RULES: dict[str, Callable[[Laws], Any]] = {
    "mode": rules.mode,
    "mean": rules.mean,
    "median": rules.median,
    "0.9 quantile": decide.pinball(0.9).decide,
    "mean of logs": rules.squared_log,
    "within one": WITHIN_ONE.decide,
    "mean, rounded": lambda laws: np.rint(rules.mean(laws)),
}


# --- one seed -----------------------------------------------------------------------------------


def measured(data: Depths, setup: Setup, seed: int) -> Arrays:
    """Laws (questions, depths), samples and words of one seed, by name."""
    need("torch", depth_reader.EXTRA).set_num_threads(1)
    train, fit, test = (
        data[rows] for rows in depths.parts(len(data), setup.fit, setup.test, setup.train, seed)
    )
    out: Arrays = {"fit": fit.depths, "test": test.depths}
    out |= _by_neighbours(train, fit, test, setup, seed)
    out |= _by_reader(train, fit, test, setup, seed)
    return out


def _by_neighbours(train: Depths, fit: Depths, test: Depths, setup: Setup, seed: int) -> Arrays:
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, soardb.connect(folder) as database:
        nouns = database.create_collection(
            "nouns", train.vectors.shape[1], "cosine", schema={"depth": "int", "above": "keyword"}
        )
        payloads = [{"depth": noun.depth, "above": noun.above} for noun in train.nouns]
        nouns.upsert(list(range(len(train))), train.vectors, payloads)
        nouns.compact()
        near = {
            name: decide.near(nouns, "depth", part.vectors, setup.neighbours, target_recall=0.99)
            for name, part in (("fit", fit), ("test", test))
        }
        temperature, score = decide.calibrated(near["fit"], fit.depths)
        laws = {name: found.laws(temperature) for name, found in near.items()}
        some = test[np.arange(setup.words)]
        config = decide.DecideConfig("token_f1", label_field="above", held_out=setup.words)
        config = replace(config, neighbours=min(32, setup.neighbours), target_recall=0.99)
        words = decide.run(nouns, replace(config, seed=seed), some.vectors)
    _say(seed, "neighbours", f"temperature {temperature:.4f}, CRPS {score:.4f}", began)
    return {
        "retrieval:temperature": np.array(temperature),
        **{f"retrieval:{name}": _dense(one) for name, one in laws.items()},
        "words:truth": np.array([noun.above for noun in some.nouns]),
        "words:overlap": words.values.astype(str),
        "words:mode": rules.mode(words.laws).astype(str),
    }


def _by_reader(train: Depths, fit: Depths, test: Depths, setup: Setup, seed: int) -> Arrays:
    began = time.perf_counter()
    vocabulary = Vocabulary([noun.gloss for noun in train.nouns], setup.reader)
    prompts = {
        name: [vocabulary.prompt(noun.gloss) for noun in part.nouns]
        for name, part in (("train", train), ("fit", fit), ("test", test))
    }
    told = (prompts["train"], train.depths)

    def progress(stage: str, share: float) -> None:
        if round(share * 1000) % 200 == 0:
            _say(seed, stage, f"{share:.0%}", began)

    plain = depth_reader.train(*told, len(vocabulary), setup.reader, seed, progress)
    out: Arrays = {}
    answers = [answer(depth) for depth in GRID]
    readers = {"reader": plain}
    for loss in ("ce", "raft", "mbr"):
        readers[loss] = depth_reader.tuned(plain, loss, *told, setup.reader, seed, progress)
    for name, reader in readers.items():
        for part in ("fit", "test"):
            logs = decide.score(reader, prompts[part], answers, END)
            laws = Laws.of_log_probabilities(logs, GRID)
            out[f"{name}:{part}"], out[f"{name}:{part}:mass"] = laws.weights, laws.mass
        _say(seed, f"scored, {name}", f"mass {laws.mass.mean():.4f}", began)
    for name, temperature in (("samples", 1.0), ("samples at 0.5", 0.5)):
        drawn, logarithms = decide.draw(
            plain, prompts["test"], END, setup.samples, temperature=temperature, longest=4,
            seed=seed,
        )  # fmt: skip
        out[name] = np.array([[depth_reader.said(s) for s in row] for row in drawn])
        out[f"{name}:logs"] = np.array(logarithms)
    greedy, _ = decide.draw(plain, prompts["test"], END, 1, temperature=0, longest=4)
    out["greedy"] = np.array([depth_reader.said(row[0]) for row in greedy])
    _say(seed, "samples", "drawn", began)
    return out


def _dense(laws: Laws) -> F64:
    """(n, 19) weights of the depths."""
    return np.stack([laws.of(depth) for depth in GRID], axis=1)


def _say(seed: int, what: str, text: str, began: float) -> None:
    print(f"seed {seed}  {what:<16} {text}  {time.perf_counter() - began:.0f} s", flush=True)


# --- the report ---------------------------------------------------------------------------------


def report_of(seeds: Sequence[Arrays], resamples: int = 1000) -> dict[str, Any]:
    """Tables of rules by metrics, samples, words and further training, over all seeds."""
    whole = {name: np.concatenate([one[name] for one in seeds])
             for name in seeds[0] if seeds[0][name].ndim}  # fmt: skip
    y = whole["test"]
    texts = whole["samples"].tolist()
    samples = Laws.of_samples(texts, depth_of, constant=0)
    greedy = Laws.of_samples(whole["greedy"][:, None].tolist(), depth_of, constant=0)
    first = Laws.of_samples([row[:1] for row in texts], depth_of, constant=0)
    extra = {
        "greedy": rules.mode(greedy),
        "one sample": rules.mode(first),
        "majority of samples": rules.mode(samples),
    }
    out: dict[str, Any] = {
        "retrieval": _tables(seeds, "retrieval", {}, resamples),
        "reader": _tables(seeds, "reader", extra, resamples),
        "samples": _samples(whole, resamples),
        "training": _training(seeds, resamples),
        "parsed": float(samples.mass.mean()),
        "questions": len(y),
    }
    words = {"overlap": whole["words:overlap"], "mode": whole["words:mode"]}
    compared = decide.compare(
        words, whole["words:truth"],
        {decide.token_overlap(): "overlap", "exact_match": "mode"}, resamples=resamples,
    )  # fmt: skip
    out["words"] = compared.to_json()
    return out


def _laws(seed: Arrays, source: str, part: str) -> Laws:
    found = Laws.of_probabilities(seed[f"{source}:{part}"], GRID)
    mass = seed.get(f"{source}:{part}:mass")
    return found if mass is None else replace(found, mass=mass)


def _decided(seeds: Sequence[Arrays], source: str) -> dict[str, npt.NDArray[Any]]:
    """Decisions of every rule and control, seed after seed."""
    parts = []
    for seed in seeds:
        fit, test = _laws(seed, source, "fit"), _laws(seed, source, "test")
        mine = {name: np.asarray(rule(test)) for name, rule in RULES.items()}
        mine |= decide.controls(test, fit, seed["fit"], rules.mode)
        mine["deep"] = _dense(test)[:, DEEP:].sum(axis=1)
        parts.append(mine)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _tables(
    seeds: Sequence[Arrays], source: str, extra: Mapping[str, Any], resamples: int
) -> dict[str, Any]:
    y = np.concatenate([seed["test"] for seed in seeds])
    decided = {**_decided(seeds, source), **extra}
    chance = decided.pop("deep")
    options: dict[str, Any] = {"resamples": resamples}
    whole = decide.compare(decided, y, METRICS, **options)
    is_deep = (y >= DEEP).astype(object)
    ranks = decide.compare(
        {**decided, "probability": chance}, is_deep, {"auc:True": "probability"}, **options
    )
    at = rules.f1_threshold(chance) - 1e-12
    called = {name: (np.asarray(v) >= DEEP).astype(object) for name, v in decided.items()}
    called["probability above F*/2"] = (chance >= at).astype(object)
    called["probability above 1/2"] = (chance >= 0.5).astype(object)
    f1 = decide.compare(called, is_deep, {decide.f1(True): "probability above F*/2"}, **options)

    def cells(table: decide.Table) -> list[dict[str, Any]]:
        # A constant orders nothing; that each seed has its own would look as if it did.
        return [
            cell
            for cell in table.to_json()["cells"]
            if not (cell["decisions"].startswith("constant") and cell["metric"] in ORDERS)
        ]

    return {
        "table": cells(whole),
        "auc": cells(ranks),
        "f1": cells(f1),
        "f1_threshold": at,
        "wins_by_seed": _wins(seeds, source, extra),
        "expected": _expected(seeds, source),
        "mass": float(np.mean([_laws(seed, source, "test").mass.mean() for seed in seeds])),
    }


def _wins(seeds: Sequence[Arrays], source: str, extra: Mapping[str, Any]) -> dict[str, list[str]]:
    """The decisions that were best, of each seed, by metric."""
    found: dict[str, list[str]] = {}
    first = 0
    for seed in seeds:
        y, mine = seed["test"], _decided([seed], source)
        mine.pop("deep")
        mine |= {name: np.asarray(v)[first : first + len(y)] for name, v in extra.items()}
        first += len(y)
        for given in METRICS:
            metric = decide.as_metric(given)
            sign = 1 if metric.higher_is_better else -1
            measures = {name: np.nan_to_num(sign * metric(y, v), nan=-np.inf)
                        for name, v in mine.items()}  # fmt: skip
            found.setdefault(metric.name, []).append(max(measures, key=measures.__getitem__))
    return found


def _expected(seeds: Sequence[Arrays], source: str) -> dict[str, dict[str, float]]:
    """The loss that the laws promise for their own best decisions, and the one that came."""
    out = {}
    for given, mine in METRICS.items():
        metric = decide.as_metric(given)
        if metric.losses is None:
            continue
        promised, came = [], []
        for seed in seeds:
            laws = _laws(seed, source, "test")
            v = np.asarray(RULES[mine](laws))
            risk = metric.risk(laws, v)
            assert risk is not None
            promised.append(risk.mean())
            came.append(metric.losses(seed["test"], v).mean())
        out[metric.name] = {"promised": float(np.mean(promised)), "came": float(np.mean(came))}
    return out


def _samples(whole: Arrays, resamples: int) -> list[dict[str, Any]]:
    """Decisions from k samples, at two temperatures, and from the distinct ones by probability."""
    y, most = whole["test"], whole["samples"].shape[1]
    counts = [k for k in (1, 2, 4, 8, 16, 32) if k <= most]
    metrics = ("rmse", "absolute_error", "exact_match")
    rows = []
    for what in ("samples", "samples at 0.5"):
        said = [[_depth_or_none(text) for text in row] for row in whole[what].tolist()]
        for metric in metrics:
            swept = decide.sweep(said, y, metric, counts, otherwise=0)
            rows += [{"what": what, "metric": metric, **asdict(one)} for one in swept]
    for metric in metrics:
        decided = {}
        for k in counts:
            laws = Laws.of_samples(
                whole["samples"][:, :k].tolist(), depth_of, constant=0,
                logs=whole["samples:logs"][:, :k].tolist(), distinct=True,
            )  # fmt: skip
            decided[str(k)] = decide.as_metric(metric).decide(laws)
        table = decide.compare(decided, y, {metric: str(counts[-1])}, resamples=resamples)
        rows += [
            {"what": "distinct samples by probability", "metric": metric, "k": k,
             **asdict(table.cells[str(k), metric])}
            for k in counts
        ]  # fmt: skip
    return rows


def _depth_or_none(text: str) -> int | None:
    try:
        return depth_of(text)
    except ValueError:
        return None


def _training(seeds: Sequence[Arrays], resamples: int) -> list[dict[str, Any]]:
    """The transformer as it was and after more training: its mode, mean and median."""
    y = np.concatenate([seed["test"] for seed in seeds])
    own: dict[Any, str] = {"exact_match": "raft, mode", "rmse": "raft, mean",
                           "absolute_error": "raft, median"}  # fmt: skip
    decided = {}
    for source in ("reader", "ce", "raft", "mbr"):
        for name in ("mode", "mean", "median"):
            decided[f"{source}, {name}"] = np.concatenate(
                [np.asarray(RULES[name](_laws(seed, source, "test"))) for seed in seeds]
            )
    rows: list[dict[str, Any]] = decide.compare(decided, y, own, resamples=resamples).to_json()[
        "cells"
    ]
    return rows


def table(report: Mapping[str, Any]) -> str:
    """Markdown: rules by metrics for both sources, samples by their number, further training."""
    lines = [
        f"Depths of nouns, {report['questions']:,} questions over {report['seeds']} seeds. Bold: "
        "the decisions that theory names for the metric. * : the 95 % interval of the difference "
        "to them, a paired bootstrap, is on their side; ! : on the other side.",
    ]
    for source in ("retrieval", "reader"):
        found = report[source]
        lines += ["", f"### {source}", ""]
        lines += _matrix([*found["table"], *found["auc"], *found["f1"]])
    lines += ["", "### further training", "", *_matrix(report["training"]), "", "### samples", ""]
    counts = list(dict.fromkeys(row["k"] for row in report["samples"]))
    lines += ["| what | metric | " + " | ".join(f"k = {k}" for k in counts) + " |"]
    lines += ["| --- | --- |" + " ---: |" * len(counts)]
    for what, metric in dict.fromkeys((row["what"], row["metric"]) for row in report["samples"]):
        values = [row["value"] for row in report["samples"]
                  if (row["what"], row["metric"]) == (what, metric)]  # fmt: skip
        lines.append(f"| {what} | {metric} | " + " | ".join(f"{v:.3f}" for v in values) + " |")
    lines += ["", "### words: what stands above a noun, by neighbours", ""]
    return "\n".join([*lines, *_matrix(report["words"]["cells"]), ""])


def _matrix(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    names = list(dict.fromkeys(cell["decisions"] for cell in cells))
    metrics = list(dict.fromkeys(cell["metric"] for cell in cells))
    by = {(cell["decisions"], cell["metric"]): cell for cell in cells}

    def text(name: str, metric: str) -> str:
        cell = by.get((name, metric))
        if cell is None or cell["value"] is None:
            return ""
        if cell["own"] == name:
            return f"**{cell['value']:.4f}**"
        if cell["gain"] is None:
            return f"{cell['value']:.4f}"
        sign = "*" if cell["gain_low"] > 0 else "!" if cell["gain_high"] < 0 else ""
        return f"{cell['value']:.4f}{sign}"

    return [
        "| decisions | " + " | ".join(metrics) + " |",
        "| --- |" + " ---: |" * len(metrics),
        *(f"| {name} | " + " | ".join(text(name, m) for m in metrics) + " |" for name in names),
    ]


# --- the run ------------------------------------------------------------------------------------


def _kept(setup: Setup, seed: int, make: Callable[[], Arrays]) -> Arrays:
    """What the seed made, from the folder of the data sets or anew."""
    told = json.dumps(asdict(setup), sort_keys=True)
    mark = hashlib.sha256(told.encode()).hexdigest()[:12]
    path = cache_folder() / f"{setup.name}-{mark}-{seed}.npz"
    if path.exists():
        with np.load(path) as held:
            return dict(held)
    found = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, **found)  # type: ignore[arg-type]  # NumPy's stub takes a bool beside arrays
    partial.replace(path)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write JSON, table and plots: exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_decide", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="made-up glosses, to see that it runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    setup = TINY if given.tiny else Setup()
    commit = provenance.commit()  # of what runs, not of what the checkout becomes meanwhile
    try:
        data = depths.made_up(1000) if given.tiny else depths.load()
        seeds = [
            _kept(setup, seed, lambda seed=seed: measured(data, setup, seed))  # type: ignore[misc]
            for seed in range(given.seeds)
        ]
    except SoarError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    report = {
        **header("decide", commit, setup, ("torch", "numpy")),
        "seeds": given.seeds,
        "temperatures": [float(seed["retrieval:temperature"]) for seed in seeds],
        **report_of(seeds, 100 if given.tiny else 1000),
    }
    stem = given.results / setup.name
    plot_comparison(
        {name: report[name]["table"] for name in ("retrieval", "reader")},
        stem.with_suffix(".png"),
    )
    plot_sweep(report["samples"], stem.with_name(f"{setup.name}-samples.png"))
    written(report, table, stem, given.seeds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
