"""Encoders that were pretrained here, as embedders, beside MiniLM and BM25 on WordNet.

    synsets.py, minilm.py, pipelines.spactor, pipelines.embed -> [bench_encoders.py] -> results/

Asked is for a definition: by a word of its synset, where all definitions of that word are right, or
by an example sentence, where its own is. Synsets that are asked for, and all of their words, are in
no pair that is learned from. Encoders are pretrained on glosses without those of these synsets, by
span corruption alone and by SpacTor, or not at all, and fine-tuned on pairs; each fills a
collection and is searched there, exactly. BM25 is the text search of the same collection, and rows
"with BM25" fuse both.

    python -m benchmarks.bench_encoders
    python -m benchmarks.bench_encoders --tiny

What is pretrained is kept as models of a database beside the data sets, and rows that are done in a
journal.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import soardb
from benchmarks import provenance
from benchmarks.dataset_files import Vectors
from benchmarks.environment import cache_folder
from benchmarks.journal import Journal
from benchmarks.minilm import MiniLM
from benchmarks.packages import fetch
from benchmarks.recipes import MINILM, WORDNET
from benchmarks.reports import grid, header, written
from benchmarks.synsets import Synset, read_synsets
from soardb.errors import SoarError
from soardb.models.config import EncoderConfig, T5Config
from soardb.models.registry import Registry
from soardb.models.t5 import T5
from soardb.models.tokens import Tokens
from soardb.models.training import TrainConfig, Windows, row_of
from soardb.pipelines.embed import ContrastConfig, Embedder, Pair, contrasted, ndcg, recall
from soardb.pipelines.spactor import Objective, SpactorConfig, run
from soardb.pipelines.spactor.measure import clean_loss
from soardb.pipelines.spactor.spans import Corrupted, Spans, corrupted

__all__ = ["BASES", "Question", "Setup", "Task", "main", "table", "task_of"]

RESULTS = Path(__file__).resolve().parent / "results"
MODEL = T5Config(EncoderConfig(2048, 16, 128, 4, 4, context=96), 2)
TRAIN = TrainConfig(3000, 32, 48, 2e-3, warm=100)
CONTRAST = ContrastConfig(train=TrainConfig(1000, 96, 32, 1e-3, weight_decay=0.01))

BASES: dict[str, tuple[Objective, float] | None] = {
    "no pretraining": None,
    "span corruption": ("sc", 0.0),
    "SpacTor": ("hybrid", 0.25),
}


@dataclass(frozen=True)
class Setup:
    """What one run measures.

    asked   synsets that are asked for; corpus: definitions that are searched, theirs included
    """

    name: str = "encoders"
    model: T5Config = MODEL
    train: TrainConfig = TRAIN
    contrast: ContrastConfig = CONTRAST
    asked: int = 1000
    corpus: int = 20_000


TINY = Setup(
    "encoders-tiny", T5Config(EncoderConfig(300, 8, 16, 2, 2, context=48), 1),
    TrainConfig(6, 8, 24, 1e-2, warm=1),
    ContrastConfig(train=TrainConfig(6, 8, 24, 1e-2, warm=1)), 12, 60,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Question:
    """kind: "word" or "example"; right: numbers of the definitions that answer it."""

    kind: str
    text: str
    right: frozenset[int]


@dataclass(frozen=True, slots=True)
class Task:
    """glosses to pretrain with, pairs to fine-tune with, definitions to search, questions."""

    glosses: list[str]
    pairs: list[Pair]
    corpus: list[str]
    questions: list[Question]


# --- texts --------------------------------------------------------------------------------------


def task_of(synsets: Sequence[Synset], setup: Setup) -> Task:
    """Of synsets in random order: the first are asked for, those after them are searched too."""
    asked, searched = synsets[: setup.asked], synsets[: setup.corpus]
    corpus = list(dict.fromkeys(one.definition for one in searched if one.definition))
    place = {text: number for number, text in enumerate(corpus)}
    hidden = {word.lower() for one in asked for word in one.words}
    answers: dict[str, set[int]] = {}
    for one in searched:
        for word in one.words:
            if one.definition:
                answers.setdefault(word.lower(), set()).add(place[one.definition])
    questions = []
    for one in asked:
        if not one.definition:
            continue
        word = one.words[0]
        questions.append(Question("word", word, frozenset(answers[word.lower()])))
        right = frozenset([place[one.definition]])
        questions += [Question("example", text, right) for text in one.examples[:1]]
    pairs = [
        Pair(query, one.definition)
        for one in synsets[setup.asked :]
        for query in [*one.words, *one.examples]
        if one.definition and query.lower() not in hidden
    ]
    known = {one.definition for one in asked}
    glosses = [one.gloss for one in synsets[setup.asked :] if one.definition not in known]
    return Task(glosses, [pair for pair in pairs if pair.text not in known], corpus, questions)


def made_up() -> list[Synset]:
    """Synsets of two words each, whose definitions and examples are of a few words."""
    rng = random.Random(0)
    names = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "lmnrst"]
    kinds = ["bird", "stone", "song", "river"]
    return [
        Synset(
            (name, name[::-1]), 3,
            f'a {rng.choice(kinds)} of the {rng.choice(["north", "south"])} called {number}; '
            f'"the {name} of {number}"',
        )
        for number, name in enumerate(names)
    ]  # fmt: skip


# --- models -------------------------------------------------------------------------------------


def pretrained(base: str, task: Task, setup: Setup) -> tuple[T5, Tokens]:
    """The model of a base, from the registry in the cache or anew."""
    arm = BASES[base]
    told = json.dumps([arm, asdict(setup.model), asdict(setup.train), task.glosses])
    mark = hashlib.sha256(told.encode()).hexdigest()[:12]
    name = f"{setup.name}-{base.replace(' ', '-')}-{mark}"
    folder = cache_folder() / "encoders"
    soardb.connect(folder).close()
    held = Registry(folder)
    if name not in held.names():
        tokens = Tokens.trained(task.glosses, setup.model.encoder.text_tokens)
        t5 = T5(setup.model, setup.train.seed)
        metrics = {}
        if arm is not None:
            assert tokens.end is not None
            config = SpactorConfig(*arm, train=setup.train, held=64)
            row = row_of(task.glosses, tokens)
            found = run(t5, row, config, end=tokens.end, progress=_say)
            metrics = {"clean_loss": found.looks[-1].clean}
        lineage = {"method": base, "texts": "WordNet's glosses", "steps": setup.train.steps}
        held.add_t5(name, t5, tokens, metrics=metrics, lineage=lineage)
    loaded = held.load(name)
    return loaded.t5, loaded.tokens


def reading(base: str, task: Task, setup: Setup) -> dict[str, Any]:
    """What the decoder of a base has from its encoder: losses with its own text and with another's.

    Glosses that are hidden from pretraining are cut up as for span corruption.
    """
    t5, tokens = pretrained(base, task, setup)
    assert tokens.end is not None
    row = row_of(task.corpus[: setup.asked], tokens)
    windows = Windows(row, setup.train.window)(256)
    cut = corrupted(windows, Spans(), t5.config.encoder, tokens.end, np.random.default_rng(0))
    other = Corrupted(cut.inputs.roll(1, 0), cut.targets)
    return {"base": base, "own_text": clean_loss(t5, cut), "other_text": clean_loss(t5, other)}


# --- measuring ----------------------------------------------------------------------------------


def searched(
    task: Task, encode: Callable[[Sequence[str]], Vectors], *, fused: bool = False
) -> dict[str, Any]:
    """Fill a collection, ask every question, judge what comes; by vectors, or with BM25 too."""
    began = time.process_time()
    vectors = encode(task.corpus)
    spent = time.process_time() - began
    queries = encode([one.text for one in task.questions])
    with tempfile.TemporaryDirectory() as folder, soardb.connect(folder) as database:
        notes = _filled(database, task, vectors)
        rankings = []
        for question, query in zip(task.questions, queries, strict=True):
            text, fields = (question.text, ["text"]) if fused else (None, None)
            hits = notes.search(query, 10, exact=True, text=text, text_fields=fields)
            rankings.append(_ids(hits))
    return {**_judged(task, rankings), "texts_s": len(task.corpus) / spent, "d": vectors.shape[1]}


def by_words(task: Task) -> dict[str, Any]:
    """BM25 alone."""
    with tempfile.TemporaryDirectory() as folder, soardb.connect(folder) as database:
        notes = _filled(database, task, np.ones((len(task.corpus), 2), np.float32))
        rankings = [
            _ids(notes.search(text=one.text, text_fields=["text"], limit=10))
            for one in task.questions
        ]
    return _judged(task, rankings)


def _filled(database: soardb.Database, task: Task, vectors: Vectors) -> soardb.Collection:
    notes = database.create_collection("notes", vectors.shape[1], schema={"text": "text"})
    for first in range(0, len(task.corpus), 4096):
        part = task.corpus[first : first + 4096]
        ids = list(range(first, first + len(part)))
        notes.upsert(ids, vectors[first : first + 4096], [{"text": text} for text in part])
    return notes


def _ids(hits: Any) -> list[int]:
    return [int(one) for one in hits.ids]


def _judged(task: Task, rankings: Sequence[list[int]]) -> dict[str, Any]:
    """By the kind of question: means with half of their 95 % interval, and how many there were."""
    found: dict[str, Any] = {}
    for kind in ("word", "example"):
        some = [
            (ranking, one.right)
            for ranking, one in zip(rankings, task.questions, strict=True)
            if one.kind == kind
        ]
        for name, judge in (("ndcg", ndcg), ("recall", recall)):
            values = [judge(ranking, right, 10) for ranking, right in some]
            found[f"{kind}_{name}"] = float(np.mean(values))
            half = 1.96 * np.std(values, ddof=1) / math.sqrt(len(values))
            found[f"{kind}_{name}_ci"] = float(half)
        found[f"{kind}s"] = len(some)
    return found


def journey(task: Task, setup: Setup, seeds: int, journal: Journal, minilm: Path | None) -> None:
    """Measure whatever is not in the journal."""

    def measured(system: str, seed: int, make: Callable[[], Mapping[str, Any]]) -> None:
        if journal.has(system=system, seed=seed):
            return
        row = {"system": system, "seed": seed, **make()}
        journal.add(row)
        print(f"seed {seed}  {system:<36} word nDCG {row['word_ndcg']:.4f}  "
              f"example nDCG {row['example_ndcg']:.4f}", flush=True)  # fmt: skip

    measured("BM25", 0, lambda: by_words(task))
    if minilm is not None:
        measured("MiniLM", 0, lambda: searched(task, MiniLM(minilm).encode))
    for base in BASES:
        t5, tokens = pretrained(base, task, setup)
        encoder = t5.encoder
        longest = setup.contrast.train.window
        plain = Embedder(encoder, tokens, longest)
        measured(f"{base}, not fine-tuned", 0, lambda e=plain: searched(task, e.vectors))  # type: ignore[misc]
        for seed in range(seeds):
            names = [f"{base}, fine-tuned", f"{base}, fine-tuned, with BM25"]
            if all(journal.has(system=name, seed=seed) for name in names):
                continue
            train = replace(setup.contrast.train, seed=seed)
            config = replace(setup.contrast, train=train)
            tuned, _ = contrasted(encoder, tokens, task.pairs, config, _say)
            made = Embedder(tuned, tokens, longest)
            measured(names[0], seed, lambda e=made: searched(task, e.vectors))  # type: ignore[misc]
            measured(names[1], seed, lambda e=made: searched(task, e.vectors, fused=True))  # type: ignore[misc]


# --- the report ---------------------------------------------------------------------------------


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Means over seeds, a row a system; *_sd: over seeds where there are several."""
    by_system: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_system.setdefault(row["system"], []).append(row)
    found = []
    for system, some in by_system.items():
        one: dict[str, Any] = {"system": system, "seeds": len(some)}
        for kind in ("word", "example"):
            for name in ("ndcg", "recall"):
                key = f"{kind}_{name}"
                values = [row[key] for row in some]
                one[key] = float(np.mean(values))
                one[f"{key}_ci"] = float(np.mean([row[f"{key}_ci"] for row in some]))
                if len(some) > 1:
                    one[f"{key}_sd"] = float(np.std(values, ddof=1))
        if "texts_s" in some[0]:
            one |= {"texts_s": float(np.mean([row["texts_s"] for row in some])), "d": some[0]["d"]}
        found.append(one)
    return found


def table(report: Mapping[str, Any]) -> str:
    """Markdown: a row a system."""
    lines = [
        f"Among {report['corpus']:,} definitions, {report['words']:,} words and "
        f"{report['examples']:,} example sentences; nDCG and recall at 10; ci: half of a 95 % "
        f"interval over questions; texts_s: texts embedded a CPU second on one thread; "
        f"{report['pairs']:,} pairs to fine-tune with."
    ]
    lines += grid("systems", report["summary"], 4)
    lines += grid(
        "loss of span corruption with the text itself and with another", report["reading"]
    )
    return "\n".join([*lines, ""])


def plot(report: Mapping[str, Any], path: Path) -> None:
    """nDCG by system and kind of question."""
    from soardb.evaluate.plots import abreast

    figure, panels = abreast(2, (13, 4.6))
    rows = report["summary"]
    names = [row["system"] for row in rows]
    for panel, kind in zip(panels, ("word", "example"), strict=True):
        values = [row[f"{kind}_ndcg"] for row in rows]
        panel.barh(range(len(rows)), values, xerr=[row[f"{kind}_ndcg_ci"] for row in rows])
        panel.set_yticks(range(len(rows)), names, fontsize=7)
        panel.invert_yaxis()
        panel.set(xlabel="nDCG@10", title=f"asked by {kind}")
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=140)


def _say(stage: str, share: float) -> None:
    if round(share * 1000) % 250 == 0:
        print(f"{stage}: {share:.0%}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write JSON, table and plot: exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_encoders", description=__doc__
    )
    parser.add_argument("--tiny", action="store_true", help="made-up texts and no MiniLM")
    parser.add_argument("--seeds", type=int, default=2, help="of fine-tuning")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    setup = TINY if given.tiny else Setup()
    commit = provenance.commit()  # of what runs, not of what the checkout becomes meanwhile
    torch.set_num_threads(1)
    try:
        synsets = made_up() if given.tiny else read_synsets(fetch(WORDNET, _say))
        random.Random(0).shuffle(synsets)
        task = task_of(synsets, setup)
        minilm = None if given.tiny else fetch(MINILM, _say)
        journal = Journal(cache_folder() / f"{setup.name}.jsonl", asdict(setup))
        journey(task, setup, given.seeds, journal, minilm)
    except SoarError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    rows = [row for row in journal.rows if row["seed"] < given.seeds]
    report = {
        **header("encoders", commit, setup, ("torch",)),
        "seeds": given.seeds,
        "corpus": len(task.corpus),
        "pairs": len(task.pairs),
        "words": rows[0]["words"],
        "examples": rows[0]["examples"],
        "summary": summary(rows),
        "reading": [reading(base, task, setup) for base in BASES],
        "rows": rows,
    }
    stem = given.results / setup.name
    plot(report, stem.with_suffix(".png"))
    written(report, table, stem, given.seeds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
