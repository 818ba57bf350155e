"""HiRE in language models: the head of SmolLM2, and feed-forward parts of which few units stay on.

    smollm2.py, glosses_lm.py, hire_ffn.py -> [bench_hire_lm.py] -> results/hire-lm.json, .md, .png

Parts, each a table; glosses of WordNet are the texts, and those that a copy is weighted by, those
that k' is calibrated on and those that are tested are three different lots:

    recall   recall@k over k' of each copy of the head, k = 1, 8, 32, on states of test glosses
    head     k' calibrated for 0.99, recall and law on test states, bytes, and microseconds beside
             dense heads of NumPy and PyTorch
    greedy   texts written with the dense head and with HiRE: how many are the same, time a token
    train    loss of decoders trained with every unit, with few, and with few groups
    mixers   HiRE upon those trained: k', what is found, loss, agreement, bytes
    wide     time of a wide feed-forward part of random weights

    python -m benchmarks.bench_hire_lm
    python -m benchmarks.bench_hire_lm --tiny
    python -m benchmarks.bench_hire_lm --parts head,wide

One thread; pin it to a core. Times are medians of rounds in which every way has its turn, so that
each finds the caches as another left them. OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE should not be
set, or NumPy is not at its best.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks import glosses_lm, hire_ffn, provenance, smollm2
from benchmarks.environment import cache_folder
from benchmarks.hire_ffn import TINY_FFN, FfnSetup
from benchmarks.packages import fetch
from benchmarks.recipes import WORDNET
from benchmarks.words import read_wordnet
from soardb.errors import SoarError
from soardb.kernels.dispatch import active
from soardb.kernels.layout import F32, I64
from soardb.models.hugging import HuggingModel
from soardb.models.sampling import Sampling
from soardb.models.session import DecoderModel, Model, generate
from soardb.pipelines.hire_lm import LAWS, Copy, HireHead, HireModel, Trunk
from soardb.topk.hire import curve_of, ranks_of

__all__ = ["Setup", "main"]

RESULTS = Path(__file__).resolve().parent / "results"
KS = (1, 8, 32)
TARGET = 0.99
OPENBLAS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
Row = dict[str, Any]


@dataclass(frozen=True)
class Setup:
    """What one run measures.

    making, calibrating, judging  windows of tokens of each lot; window: tokens of each
    ranks    of low-rank copies
    steps    of training, of trained ones
    rounds   of times; prompts, prompt, length: of greedy texts
    """

    name: str = "hire-lm"
    making: int = 64
    calibrating: int = 32
    judging: int = 32
    window: int = 64
    ranks: tuple[int, ...] = (32, 64, 128, 256)
    steps: int = 150
    rounds: int = 41
    prompts: int = 16
    prompt: int = 12
    length: int = 24
    wide: tuple[int, int, int] = (2048, 8192, 16)  # width, units, group
    ffn: FfnSetup = field(default_factory=FfnSetup)


TINY = Setup("hire-lm-tiny", 20, 20, 20, 20, (8, 16), 5, 3, 3, 4, 8, (64, 256, 8), TINY_FFN)


class Subject:
    """The model whose head is measured, and states of three lots of texts."""

    def __init__(self, setup: Setup, tiny: bool) -> None:
        self.setup, self._tiny = setup, tiny

    @cached_property
    def texts(self) -> glosses_lm.Texts:
        """What the small decoders are trained on."""
        made = glosses_lm.made_up if self._tiny else glosses_lm.load
        return made(self.setup.ffn.vocabulary)

    @cached_property
    def model(self) -> Model:
        """SmolLM2, or a small decoder where all is tiny."""
        if not self._tiny:
            return smollm2.load()
        ffn = self.setup.ffn
        return DecoderModel(hire_ffn.trained(self.texts, ffn, ffn.decoder, 0, _say))

    @cached_property
    def trunk(self) -> Trunk:
        """Of the model."""
        return Trunk(self.model)

    @cached_property
    def rows(self) -> I64:
        """(lots, window) tokens: making, calibrating, judging, one after the other."""
        setup = self.setup
        count = setup.making + setup.calibrating + setup.judging
        if self._tiny:
            row = self.texts.train
        else:
            glosses = read_wordnet(fetch(WORDNET, _say))
            random.Random(0).shuffle(glosses)
            assert isinstance(self.model, HuggingModel)
            row = np.array(self.model.tokens.encode("\n".join(glosses[: 8 * count])), np.int64)
        return row[: count * setup.window].reshape(count, setup.window)

    @cached_property
    def states(self) -> tuple[F32, F32, F32]:
        """Of each lot, from the cache or anew."""
        setup, rows = self.setup, self.rows
        mark = hashlib.sha256(rows.tobytes() + self.trunk.head.tobytes()).hexdigest()
        path = cache_folder() / "models" / f"states-{mark[:16]}.npy"
        if not path.exists():
            _say("states", 0.0)
            found = self.trunk.states(torch.from_numpy(rows))
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, found)
        every = np.load(path, allow_pickle=False)
        ends = np.cumsum([setup.making, setup.calibrating]) * setup.window
        first, second, third = np.split(every, ends)
        return first, second, third

    @cached_property
    def prompts(self) -> list[list[int]]:
        """Beginnings of test windows."""
        count = self.setup.prompts
        return [row[: self.setup.prompt].tolist() for row in self.rows[-count:]]

    def copies(self) -> list[Copy]:
        """Those that are compared."""
        bits = [Copy(bits=b, turned=t) for t in (False, True) for b in (8, 4)]
        ranks = self.setup.ranks
        return bits + [Copy(rank=r, trained=t) for r in ranks for t in (0, self.setup.steps)]


# --- the head -----------------------------------------------------------------------------------


def recall(subject: Subject) -> list[Row]:
    """Recall@k over k' on test states; and what calibration on others would take for TARGET."""
    making, calibrating, judging = subject.states
    weight, rows = subject.trunk.head, []
    true = [
        active.exact_topk(weight, some, max(KS), "dot", 1)[1] for some in (calibrating, judging)
    ]
    plain = [Copy(rank=r, weighted=False) for r in subject.setup.ranks]
    for copied in subject.copies() + plain:
        made = copied.make(weight, making)
        ranks = []
        for some, tokens in zip((calibrating, judging), true, strict=True):
            parts = [
                ranks_of(made.scores(some[at : at + 64]), tokens[at : at + 64])
                for at in range(0, len(some), 64)
            ]
            ranks.append(np.concatenate(parts))
        for k in KS:
            curve = curve_of(np.sort(ranks[0][:, :k], axis=1), len(weight), 0.95)
            chosen = curve.choose(TARGET)
            hit = ranks[1][:, :k] < chosen
            row: Row = {
                "copy": copied.name,
                "k": k,
                "chosen": chosen,
                "calibrated_recall": float(curve.recall[curve.predicted == chosen][0]),
                "recall": float(hit.mean()),
                "all_found": float(hit.all(axis=1).mean()),
            }
            for predicted in (1, 8, 32, 128, 512, 2048, 8192):
                if k <= predicted < len(weight):
                    row[f"recall@k, k' = {predicted}"] = float((ranks[1][:, :k] < predicted).mean())
            rows.append(row)
    return rows


def head(subject: Subject) -> list[Row]:
    """Each copy at the k' that calibration takes for k = 8: law, bytes and time."""
    making, calibrating, judging = subject.states
    weight = subject.trunk.head
    k = 8
    true, _ = active.exact_topk(weight, judging, k, "dot", 1)
    some = judging[:: max(1, len(judging) // 256)]
    laws = torch.from_numpy(some @ weight.T).softmax(-1)
    rows, ways = _dense_ways(weight, k)
    for copied in subject.copies():
        found = HireHead(weight, copied.make(weight, making), k=k)
        found.calibrate(calibrating, TARGET)
        assert found.predicted is not None
        logits, _ = found.topk(judging)
        told = found.traffic()
        row: Row = {
            "head": copied.name,
            "predicted": found.predicted,
            "recall": float((logits >= true[:, -1:] - 1e-4).mean()),
            "same_first": float((logits[:, 0] >= true[:, 0] - 1e-4).mean()),
            "megabytes": sum((told.estimate, told.rescore)) / 1e6,
            "predicted_speedup": told.speedup,
        }
        for law in LAWS:
            far = torch.from_numpy(found.logits(some, law)).softmax(-1) - laws
            row[f"tv_{law}"] = float(far.abs().sum(-1).mean() / 2)
        rows.append(row)
        ways.append(found.topk)
    for count, name in ((1, "us"), (5, "us_of_5")):
        states = [judging[at : at + count] for at in range(0, len(judging) - count, count)]
        for row, us in zip(rows, _medians(ways, states, subject.setup.rounds), strict=True):
            row[name] = us
    dense = min(row["us"] for row in rows if row["head"].endswith("float32"))
    five = min(row["us_of_5"] for row in rows if row["head"].endswith("float32"))
    for row in rows:
        row |= {"speedup": dense / row["us"], "speedup_of_5": five / row["us_of_5"]}
    return rows


def _dense_ways(weight: F32, k: int) -> tuple[list[Row], list[Callable[[F32], Any]]]:
    """Dense heads: every logit, then the k best."""
    wide = torch.from_numpy(weight)
    half = wide.bfloat16()

    def by_numpy(states: F32) -> Any:
        scores = states @ weight.T
        best = np.argpartition(scores, -k, axis=1)[:, -k:]
        return np.take_along_axis(scores, best, 1), best

    def by_torch(matrix: torch.Tensor, states: F32) -> Any:
        with torch.inference_mode():
            asked = torch.from_numpy(states).to(matrix.dtype)
            return functional.linear(asked, matrix).topk(k, dim=-1)

    def by_soardb(states: F32) -> Any:
        return active.exact_topk(weight, states, k, "dot", 1)

    ways: dict[str, tuple[Callable[[F32], Any], int]] = {
        "dense, NumPy float32": (by_numpy, 4),
        "dense, PyTorch float32": (partial(by_torch, wide), 4),
        "dense, soardb float32": (by_soardb, 4),
        "dense, PyTorch bfloat16": (partial(by_torch, half), 2),
    }
    rows: list[Row] = [
        {"head": name, "megabytes": size * weight.size / 1e6, "predicted_speedup": 4 / size}
        | ({"recall": 1.0} if size == 4 else {})
        for name, (_, size) in ways.items()
    ]
    return rows, [way for way, _ in ways.values()]


def _medians(
    ways: Sequence[Callable[[F32], Any]], states: Sequence[F32], rounds: int
) -> list[float]:
    """Median microseconds of each way, all having their turn in every round, on fresh states."""
    times = np.empty((rounds + 1, len(ways)))
    for turn in range(rounds + 1):
        some = states[turn % len(states)]
        for place, way in enumerate(ways):
            began = time.perf_counter()
            way(some)
            times[turn, place] = time.perf_counter() - began
    return [float(us) for us in np.median(times[1:], axis=0) * 1e6]  # the first round warms up


def greedy(subject: Subject) -> list[Row]:
    """Texts with the dense head and with HiRE, prompt by prompt in turn; medians over prompts."""
    making, calibrating, _ = subject.states
    trunk, setup = subject.trunk, subject.setup
    models: dict[str, Model] = {"dense": subject.model}
    moved = {"dense": trunk.head.nbytes}
    for copied in (Copy(bits=8), Copy(bits=4, turned=True), Copy(rank=setup.ranks[-1])):
        found = HireHead(trunk.head, copied.make(trunk.head, making), k=8)
        found.calibrate(calibrating, TARGET)
        models[copied.name] = HireModel(trunk, found)
        told = found.traffic()
        moved[copied.name] = told.estimate + told.rescore
    texts: dict[str, list[list[int]]] = {name: [] for name in models}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for prompt in subject.prompts:
        for name, model in models.items():
            began = time.perf_counter()
            text = list(generate(model, prompt, setup.length, Sampling(0.0), torch.Generator()))
            seconds[name].append((time.perf_counter() - began) / len(text))
            texts[name].append(text)
    # Every weight is read once a token; the head of these models is their embedding too.
    network = getattr(subject.model, "network", None) or getattr(subject.model, "decoder", None)
    assert isinstance(network, torch.nn.Module)
    every = 4 * sum(weight.numel() for weight in network.parameters())
    rows = []
    for name, mine in texts.items():
        same = [a == b for a, b in zip(mine, texts["dense"], strict=True)]
        pairs = [x == y for a, b in zip(mine, texts["dense"], strict=True)
                 for x, y in zip(a, b, strict=False)]  # fmt: skip
        ratios = np.array(seconds["dense"]) / np.array(seconds[name])
        rows.append(
            {
                "head": name,
                "texts": len(mine),
                "same_texts": float(np.mean(same)),
                "same_tokens": float(np.mean(pairs)),
                "ms_a_token": 1000 * float(np.median(seconds[name])),
                "speedup": float(np.median(ratios)),
                "predicted_speedup": every / (every - moved["dense"] + moved[name]),
            }
        )
    return rows


# --- the report ---------------------------------------------------------------------------------

PARTS: dict[str, Callable[[Subject], list[Row]]] = {
    "recall": recall,
    "head": head,
    "greedy": greedy,
    "train": lambda subject: hire_ffn.train(subject.texts, subject.setup.ffn, _say),
    "mixers": lambda subject: hire_ffn.mixers(subject.texts, subject.setup.ffn, _say),
    "wide": lambda subject: hire_ffn.wide(subject.setup.wide, subject.setup.rounds),
}


def as_table(rows: Sequence[Row]) -> str:
    """Markdown; columns in the order in which they come up."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(_shown(row.get(name, "")) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 20 else f"{value:.4g}"


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Recall over k'; speed-up predicted and measured; loss over the share of units."""
    from soardb.evaluate.plots import abreast

    figure, (left, middle, right) = abreast(3, (16, 5.6))
    for row in report["recall"]:
        if row["k"] == 8:
            told = {int(name.rpartition(" ")[2]): value for name, value in row.items()
                    if name.startswith("recall@k")}  # fmt: skip
            style = "-" if "bits" in row["copy"] or "weighted" in row["copy"] else ":"
            left.plot(list(told), list(told.values()), style, marker="o", ms=3, label=row["copy"])
    left.set(
        xscale="log", xlabel="k' predicted", ylabel="recall@8", title="the head, on test states"
    )
    left.legend(fontsize=6.5, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    for number, row in enumerate(report["head"]):
        marker = "os^Dv"[number // 5]
        middle.plot(row["predicted_speedup"], row["speedup"], marker, label=row["head"])
    most = max(row["predicted_speedup"] for row in report["head"])
    middle.plot([0.5, most], [0.5, most], color="0.7", lw=0.8)
    middle.set(xscale="log", yscale="log", xlabel="speed-up by bytes", ylabel="measured",
               title="one state")  # fmt: skip
    ticks = [1, 2, 4, 8]
    middle.set_xticks(ticks, map(str, ticks))
    middle.set_yticks(ticks, map(str, ticks))
    middle.minorticks_off()
    middle.legend(fontsize=6.5, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    for group in dict.fromkeys(row["group"] for row in report["train"]):
        mine = [row for row in report["train"] if row["group"] == group and row["share"] < 1]
        if mine:
            right.errorbar(
                [row["share"] for row in mine],
                [row["perplexity"] for row in mine],
                yerr=[row["sd"] or 0.0 for row in mine],
                marker="o",
                capsize=2,
                label="single units" if group == 1 else f"groups of {group}",
            )
    right.axhline(report["train"][0]["perplexity"], color="0.6", ls="--", lw=0.8, label="all units")
    right.set(xlabel="share of units that stay on", ylabel="perplexity a token", title="training")
    right.legend(fontsize=8)
    for panel in (left, middle, right):
        panel.grid(visible=True, color="0.92")
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def publish(report: Mapping[str, Any], path: Path) -> None:
    """Tables beside the JSON, and the plot once every part is there."""
    tables = [f"## {part}\n\n{as_table(report[part])}\n" for part in PARTS if part in report]
    path.with_suffix(".md").write_text("\n".join(tables), "utf-8")
    if all(part in report for part in PARTS):
        draw(report, path.with_suffix(".png"))


def _say(stage: str, share: float) -> None:
    if round(share * 1000) % 250 == 0:
        print(f"{stage}: {share:.0%}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the parts asked for, write JSON, tables and plot: exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_hire_lm", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a small decoder, to see that it runs")
    parser.add_argument("--parts", default=",".join(PARTS), help="comma separated")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    chosen = given.parts.split(",")
    if unknown := [part for part in chosen if part not in PARTS]:
        parser.error(f"expected parts of {', '.join(PARTS)}, got {', '.join(unknown)}")
    torch.set_num_threads(1)
    setup = TINY if given.tiny else Setup()
    subject = Subject(setup, given.tiny)
    path = given.results / f"{setup.name}.json"
    report: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    given.results.mkdir(parents=True, exist_ok=True)
    commit = provenance.commit()  # of what runs, not of what the checkout becomes meanwhile
    try:
        for part in chosen:
            report[part] = PARTS[part](subject)
            report.setdefault("measured", {})[part] = {
                "commit": commit,
                "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            }
            print(f"\n## {part}\n\n{as_table(report[part])}", flush=True)
            report |= {
                "benchmark": "hire-lm",
                "machine": provenance.machine(),
                "openblas": {name: os.environ.get(name) for name in OPENBLAS},
                "versions": {"torch": torch.__version__, "numpy": np.__version__},
                "setup": asdict(setup),
            }  # fmt: skip
            path.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    except SoarError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    publish(report, path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
