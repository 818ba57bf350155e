"""An agent that learns from its own searches: accuracy by generation on questions over WordNet.

    lookups.py, lookup_models.py, soardb.pipelines.agent -> [bench_agent.py] -> results/agent.*

Questions need two to four look-ups in a collection of nouns, one after the other. A teacher out of
rules, which errs on purpose, shows a small decoder the five steps over made-up names, of which
nothing is to be known: generation 0. ReST makes 1 and 2 of it over the collection: the policy
answers, its samples are ranked by a rater out of rules, which may refuse all of a step, and the
decoder of generation 0 learns from them. Beside it, from the same trajectories: all steps kept,
targets of lowest perplexity in place of those ranked best, twice the data, a smaller student, and
answers without a search; with --bounds, targets that are drawn and ideal ones, and another seed.
All are measured on questions for tests, whose facts are in no other question, ten runs each; drafts
tell what the self-checks do. Chains ask for a name, other questions for one of two answers, so
accuracy over chains is without luck.

    python -m benchmarks.bench_agent [--threads N] [--bounds]
    python -m benchmarks.bench_agent --tiny

Models, trajectories and answers of searches are kept beside the data sets, and a run that was
stopped goes on.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

import soardb
from benchmarks import lookups, provenance
from benchmarks.environment import cache_folder
from benchmarks.lookup_models import Faults, Judge, Rater, Teacher, ideal, is_right
from benchmarks.lookups import Lookups
from benchmarks.packages import fetch
from benchmarks.recipes import WORDNET
from benchmarks.reports import grid, header, written
from soardb.errors import SoarError
from soardb.kernels.layout import I64
from soardb.models.config import DecoderConfig
from soardb.models.decoder import Decoder
from soardb.models.induction import with_induction
from soardb.models.registry import Registry
from soardb.models.tokens import Tokens
from soardb.models.training import TrainConfig, Windows, cross_entropy, descend, row_of
from soardb.pipelines.agent.actions import STEPS
from soardb.pipelines.agent.compose import Composed
from soardb.pipelines.agent.feedback import RankConfig
from soardb.pipelines.agent.language import LanguageModel
from soardb.pipelines.agent.local import LocalModel
from soardb.pipelines.agent.machine import Agent, AgentConfig, Question
from soardb.pipelines.agent.mixture import Example, Targets, mixture
from soardb.pipelines.agent.prompts import Exemplar, read_case, target
from soardb.pipelines.agent.rest import Rest, RestConfig, evaluate, fine_tuned, grow
from soardb.pipelines.agent.store import Trajectories, hashed
from soardb.pipelines.agent.tools import CachedTool, CollectionTool, Snippet, Tool
from soardb.pipelines.agent.trajectory import Ranking, StepRecord, Trajectory
from soardb.pipelines.agent.tuning import TuneConfig

__all__ = ["Setup", "main", "table"]

RESULTS = Path(__file__).resolve().parent / "results"
POLICY = DecoderConfig(2048, 128, 4, 2, context=2048, rope_base=500_000.0)
STUDENT = DecoderConfig(2048, 80, 2, 2, context=2048, rope_base=500_000.0)


@dataclass(frozen=True)
class Setup:
    """What one run measures.

    questions  of each split; shown: of those for training that the teacher answers, for the
               tokenizer alone; asked: the first by their ids, of all kinds but same-2, that
               policies answer to learn from; tested: of those for tests
    base       pretraining of both decoders, which begin with an induction head: two batches of
               three of tokens drawn at random that are said again, and one of the collection's
               texts
    drills     questions over made-up names; from `drilled` of the teacher's steps there both learn
               as `drill` says, to read too: they have seen the steps and know no question of the
               collection
    rest       generations; its runs are those of validation, `runs` those of the test
    first      who grows generation 1: "base", or "teacher" where nothing small learns the steps
    snippet    characters
    """

    name: str = "agent"
    questions: Mapping[str, int] = field(
        default_factory=lambda: {"train": 700, "validation": 60, "test": 100}
    )
    shown: int = 50
    asked: int = 500
    tested: int = 60
    vocabulary: int = 2048
    policy: DecoderConfig = POLICY
    student: DecoderConfig = STUDENT
    base: TrainConfig = TrainConfig(450, 8, 256, 2e-3, warm=30)  # noqa: RUF009  frozen
    drills: int = 6000
    drilled: int = 40_000
    drill: TuneConfig = TuneConfig(1.0, 2048, 1e-3, reading=1.0)  # noqa: RUF009  frozen
    rest: RestConfig = field(
        default_factory=lambda: RestConfig(
            2,
            agent=AgentConfig(longest=240),
            growing=AgentConfig(samples=8, temperature=0.8, longest=240),
            rank=RankConfig(may_refuse=True, shown=8),
            tune=TuneConfig(1.0, 2048, 1e-4),
            runs=3,
            is_patient=True,
            at_once=64,
        )
    )
    runs: int = 10
    snippet: int = 130
    first: str = "base"


TINY = Setup(
    "agent-tiny", {"train": 18, "validation": 6, "test": 6}, 12, 18, 6, 400,
    DecoderConfig(400, 64, 2, 2, context=1024), DecoderConfig(400, 32, 2, 1, context=1024),
    TrainConfig(8, 4, 32, 1e-2, warm=1), 12, 20, TuneConfig(1.0, 4096, 1e-2, reading=1.0),
    RestConfig(1, agent=AgentConfig(5, 2, longest=24, tries=1),
               rank=RankConfig(may_refuse=True), tune=TuneConfig(0.2, 4096, 1e-2), runs=2,
               is_patient=True), 2, 110,
    first="teacher",
)  # fmt: skip


# --- what there is to work with -----------------------------------------------------------------


@dataclass
class Bench:
    """An open database of nouns, trajectories and models; questions; and the tool."""

    setup: Setup
    database: Any
    registry: Registry
    tool: CachedTool
    questions: Mapping[str, list[Composed]]
    nouns: Lookups

    def store(self, run: str) -> Trajectories:
        """Trajectories of one undertaking."""
        return Trajectories.create(self.database, "trajectories", hashed, run)

    def tested(self) -> list[Composed]:
        """Those of the questions for tests that are asked, of all kinds."""
        every = self.questions["test"]
        places = np.linspace(0, len(every) - 1, self.setup.tested).round().astype(int)
        return [every[place] for place in places.tolist()]

    def of(self, split: str) -> list[Question]:
        """Questions of a split, by their ids as texts."""
        return sorted((one.question for one in self.questions[split]), key=lambda one: one.id)

    def agent(self, model: LanguageModel) -> Agent:
        """With this setup's steps."""
        return Agent(model, self.tool, self.setup.rest.agent)

    def policy(self, name: str) -> LanguageModel:
        """Of the registry."""
        return LocalModel(self.registry.load(name))


def opened(setup: Setup, nouns: Lookups, folder: Path) -> Bench:
    """A database in this folder, filled where it is new."""
    folder.mkdir(parents=True, exist_ok=True)
    database = soardb.connect(str(folder))
    collection = lookups.collection_of(database, "nouns", nouns)
    found = CollectionTool(collection, "text", title="title", longest=setup.snippet)
    tool = CachedTool(found, folder / "answers.sqlite")
    questions = lookups.split(
        nouns, lambda name: [one.title for one in tool.search(name)], setup.questions, 0
    )
    return Bench(setup, database, Registry(folder), tool, questions, nouns)


def based(bench: Bench) -> None:
    """Both base models: passages of the collection that stand beside each other, as those of a noun
    and of what it is a kind of, copying, and drills.
    """
    setup, texts = bench.setup, bench.nouns.texts
    missing = {"base": setup.policy, "base-small": setup.student}
    missing = {k: v for k, v in missing.items() if k not in bench.registry.names()}
    if not missing:
        return
    pages = [
        f"{texts[name]}\n{texts[other]}\n"
        for name, told in bench.nouns.facts.items()
        for other in told.values()
        if name in texts and other in texts
    ]
    shown = grown(bench, "teacher", Teacher(), bench.of("train")[: setup.shown], 1)
    some = [one.prompt + one.target for one in mixture(shown)]
    tokens = Tokens.trained([*pages[::10], *some], setup.vocabulary, "after")
    row = row_of(pages, tokens)
    examples = drills(bench, tokens)
    for name, config in missing.items():
        copying = f"{name}-copying"
        if copying not in bench.registry.names():
            decoder = with_induction(Decoder(replace(config, vocabulary=len(tokens)), 0))
            loss = _losses(decoder, row, setup.base)
            losses = descend([decoder], loss, setup.base, _say, f"{name}: pretraining")
            bench.registry.add_decoder(copying, decoder, tokens, metrics={"loss": losses[-1]})
        progress = functools.partial(_stage, f"{name}: drills")
        fine_tuned(bench.registry, copying, name, examples, setup.drill, progress)


def drills(bench: Bench, tokens: Tokens) -> list[Example]:
    """Steps of the teacher over names that are drawn from the tokenizer's pieces of words.

    They are told apart by nothing but their letters, so that they can only be copied.
    """
    setup, texts = bench.setup, list(bench.nouns.texts.values())
    pieces = [tokens.decode([token]) for token in range(1, len(tokens))]
    pieces = [piece for piece in pieces if piece.isascii() and piece.isalpha() and len(piece) > 1]
    glosses = [text.rpartition('". ')[2] for text in texts[::7]]
    made = lookups.made_up(4 * setup.drills, pieces, glosses)
    collection = lookups.collection_of(bench.database, "made-up", made)
    found = CollectionTool(collection, "text", title="title", longest=setup.snippet)
    (asked,) = lookups.split(
        made, lambda name: [one.title for one in found.search(name)], {"drills": setup.drills}, 0
    ).values()
    store = bench.store("drills")
    grow(
        Agent(Teacher(), found, setup.rest.agent), store, [one.question for one in asked], 0, 1,
        setup.rest.at_once, lambda share: _say("drills: growing", share),
    )  # fmt: skip
    examples = mixture(sorted(store.all(generation=0), key=lambda one: one.question_id))
    order = np.random.default_rng(0).permutation(len(examples))[: setup.drilled]
    return [examples[place] for place in order.tolist()]


def _losses(decoder: Decoder, row: I64, config: TrainConfig) -> Callable[[int], torch.Tensor]:
    """The loss of a step: of windows of the row, or of copying what was drawn at random.

    Rows to copy are a quarter, once or four times as long as windows, in batches of as many tokens.
    """
    windows = Windows(row, config.window, 0)
    random = np.random.default_rng(0)

    def loss(step: int) -> torch.Tensor:
        if step % 3 == 2:
            return cross_entropy(decoder, windows(config.batch))
        by = (0.25, 1, 4)[int(random.integers(3))]
        batch, window = max(1, round(config.batch / by)), round(config.window * by)
        said, counts = again(decoder.config.vocabulary, batch, window, random)
        hidden = decoder(said[:, :-1])[counts[:, 1:]]
        return functional.cross_entropy(decoder.logits(hidden), said[:, 1:][counts[:, 1:]])

    return loss


def again(
    vocabulary: int, batch: int, window: int, random: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """(batch, window) tokens, in each row some drawn at random and said again and again; and which
    of them were said before.
    """
    rows = np.empty((batch, window), np.int64)
    counts = np.zeros((batch, window), bool)
    for row in range(batch):
        length = int(random.integers(4, max(5, window // 2)))
        rows[row] = np.resize(random.integers(0, vocabulary, length), window)
        counts[row, length:] = True
    return torch.from_numpy(rows), torch.from_numpy(counts)


# --- what is done -------------------------------------------------------------------------------


def grown(
    bench: Bench, run: str, model: LanguageModel, questions: Sequence[Question], repetitions: int,
    generation: int = 0,
) -> list[Any]:  # fmt: skip
    """The trajectories of a run, those that are missing made now."""
    store = bench.store(run)
    grow(
        bench.agent(model), store, questions, generation, repetitions,
        bench.setup.rest.at_once, lambda share: _say(f"{run}: growing", share),
    )  # fmt: skip
    return store.all(generation=generation)


def learned(
    bench: Bench, name: str, base: str, trajectories: Sequence[Any], targets: Targets
) -> None:
    """A policy from trajectories, if it is not there."""
    if name not in bench.registry.names():
        fine_tuned(
            bench.registry, base, name, mixture(trajectories, targets), bench.setup.rest.tune,
            lambda stage, share: _say(f"{name}: {stage}", share), {"targets": targets},
        )  # fmt: skip


class Closed:
    """A tool that finds nothing: what is answered then is known by heart, or guessed."""

    key = "closed book"

    def search(self, query: str) -> list[Snippet]:
        """Nothing."""
        return []


def measured(
    bench: Bench, name: str, model: LanguageModel, tool: Tool | None = None
) -> dict[str, Any]:
    """Accuracy on the test questions, before and after self-checks; with another tool, if told."""
    setup = bench.setup
    began, written_before = time.process_time(), model.usage.completion_tokens
    asked = [one.question for one in bench.tested()]
    kinds = {one.question.id: one.kind for one in bench.tested()}
    found = evaluate(
        Agent(model, tool or bench.tool, setup.rest.agent), Judge(),
        bench.store(f"test {name}"), asked, 0, setup.runs, setup.rest.at_once, kinds,
        lambda share: _say(f"{name}: test", share),
    )  # fmt: skip
    told = {"policy": name, **found.to_json(), "cpu_s": time.process_time() - began,
            "tokens": model.usage.completion_tokens - written_before}  # fmt: skip
    told["chains"] = float(
        np.mean([found.by_question[name] for name, kind in kinds.items() if _is_chain(kind)])
    )
    told["first_faults"] = first_faults(bench.store(f"test {name}").all())
    if name in bench.registry.names():
        entry = bench.registry.get(name)
        told["parameters"], told["examples"] = entry.parameters, entry.lineage["examples"]
    print(f"\n{name:<24} {found.mean:.3f} +- {found.sd:.3f}", flush=True)
    return told


def first_faults(ways: Sequence[Trajectory]) -> dict[str, float]:
    """The share of trajectories whose first step that is not as it should be is of which kind.

    "none": of those without any; "unread": of those that end before it by what cannot be read.
    """
    found = dict.fromkeys(("none", *STEPS, "unread"), 0.0)
    for way in ways:
        bad = [step.step for step in way.steps if not is_right(step.prompt, step.text)]
        found[bad[0] if bad else "none" if way.is_complete else "unread"] += 1 / len(ways)
    return found


def rows_of(bench: Bench, is_bounded: bool = False) -> list[dict[str, Any]]:
    """All policies, made and measured."""
    setup, last = bench.setup, bench.setup.rest.generations
    based(bench)
    store = bench.store("rest")
    first = Teacher() if setup.first == "teacher" else bench.policy("base")
    loop = Rest(
        "rest", bench.registry, "base", first, bench.tool, Rater(), Judge(), store,
        bench.store("validation"), bench.of("train")[: setup.asked], bench.of("validation"),
        setup.rest,
    )  # fmt: skip
    generations = loop.run(_say)
    ways = store.all(generation=last, repetition=0)
    learned(bench, f"g{last}-perplexity", "base", ways, "perplexity")
    learned(bench, f"g{last}-kept", "base", list(map(kept, ways)), "ranked")
    learned(bench, f"g{last}-student", "base-small", ways, "ranked")
    # As many ways again to the same questions, by the policy that went the first.
    before = bench.agent(first if last == 1 else bench.policy(f"rest-g{last - 1}"))
    twice = replace(loop, config=replace(setup.rest, repetitions=2))
    twice.improve(last, before, _say)
    learned(bench, f"g{last}-twice", "base", store.all(generation=last), "ranked")
    names = ["base", *(f"rest-g{number}" for number in range(1, last + 1))]
    names += [f"g{last}-{way}" for way in ("kept", "perplexity", "twice")]
    names += ["base-small", f"g{last}-student"]
    if is_bounded:
        names += bounds(bench, last, ways)
    scripted: dict[str, LanguageModel] = {
        "teacher": Teacher(), "without faults": Teacher("without faults", faults=Faults.none())
    }  # fmt: skip
    rows = [measured(bench, name, model) for name, model in scripted.items()]
    rows += [measured(bench, name, bench.policy(name)) for name in names]
    rows.append(measured(bench, "closed-book", bench.policy(f"rest-g{last}"), Closed()))
    by_model = {one.model: one for one in generations}
    for row in rows:
        if row["policy"] in by_model:
            row["validation"] = by_model[row["policy"]].validation.to_json()
    return rows


def kept(way: Trajectory) -> Trajectory:
    """With all steps to be learned from, those too whose samples are all bad, as in the paper."""
    steps = [
        one if one.ranking is None else replace(one, ranking=replace(one.ranking, is_good=True))
        for one in way.steps
    ]
    return way.with_steps(tuple(steps))


def bounds(bench: Bench, last: int, ways: Sequence[Trajectory]) -> list[str]:
    """Policies that tell what the others are worth, from the trajectories of the last generation.

    Targets that are drawn, targets as they should be, and as ranked with another seed of learning.
    """
    drawn = np.random.default_rng(0)

    def chosen(step: StepRecord) -> StepRecord:
        good = [number for number, one in enumerate(step.samples) if one.error is None]
        place = good[int(drawn.integers(len(good)))]
        return replace(step, ranking=Ranking("drawn", (place,), "chance"))

    some = [one.with_steps(tuple(map(chosen, one.steps))) for one in ways]
    learned(bench, f"g{last}-drawn", "base", some, "ranked")
    name = f"g{last}-ideal"
    if name not in bench.registry.names():
        examples = [
            replace(one, target=target(Exemplar(case := read_case(one.prompt), ideal(case))))
            for one in mixture(ways)
        ]
        fine_tuned(bench.registry, "base", name, examples, bench.setup.rest.tune, _say)
    again = f"g{last}-seed-1"
    if again not in bench.registry.names():
        config = replace(bench.setup.rest.tune, seed=1)
        fine_tuned(bench.registry, "base", again, mixture(ways), config, _say)
    return [f"g{last}-drawn", name, again]


# --- reporting ----------------------------------------------------------------------------------


def gaps(
    rows: Sequence[Mapping[str, Any]], last: int, kinds: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Differences of policies by question, with 95 % intervals of a bootstrap over questions.

    Of all questions, and of chains, whose answers cannot be guessed. kinds: of questions by id
    """
    held = {row["policy"]: row["by_question"] for row in rows}
    final = f"rest-g{last}"
    pairs = [
        (final, "base"), ("rest-g1", "base"), (final, "rest-g1"), (final, f"g{last}-kept"),
        (f"g{last}-kept", f"g{last}-perplexity"),
        (final, f"g{last}-drawn"), (f"g{last}-ideal", final), (f"g{last}-twice", final),
        (f"g{last}-seed-1", final), (f"g{last}-student", "base-small"),
        (final, f"g{last}-student"), (final, "closed-book"), (final, "teacher"),
    ]  # fmt: skip
    random = np.random.default_rng(0)
    found = []
    for one, other in dict.fromkeys(pairs):
        if one == other or not {one, other} <= set(held):
            continue
        told: dict[str, Any] = {"policy": one, "over": other}
        for what, ids in (
            ("", list(kinds)),
            (" of chains", [i for i in kinds if _is_chain(kinds[i])]),
        ):
            by = np.array([held[one][name] - held[other][name] for name in ids])
            drawn = by[random.integers(0, len(by), (2000, len(by)))].mean(axis=1)
            low, high = np.quantile(drawn, [0.025, 0.975])
            told |= {f"gap{what}": float(by.mean()), f"from{what}": float(low),
                     f"to{what}": float(high)}  # fmt: skip
        found.append(told)
    return found


def _is_chain(kind: str) -> bool:
    """Whether a question of that kind asks for a name: others have two answers."""
    return kind.startswith("chain")


def floor(questions: Sequence[Composed]) -> float:
    """Of a coin that knows what is asked for: half of what has two answers."""
    return float(np.mean([0.0 if _is_chain(one.kind) else 0.5 for one in questions]))


def table(report: Mapping[str, Any]) -> str:
    """Markdown: accuracy of each policy, and by kind of question."""
    rows = report["rows"]
    shown = [
        {
            "policy": row["policy"],
            "accuracy": f"{row['mean']:.3f} ± {row['sd']:.3f}",
            "of chains": row["chains"],
            "before checks": row["before_mean"],
            "no answer": row["failed"],
            "searches": row["searches"],
            "examples": sum(row.get("examples", {}).values()) or "",
            "parameters": f"{row['parameters']:,}" if "parameters" in row else "",
        }
        for row in rows
    ]
    kinds = [{"policy": row["policy"], **row["by_kind"]} for row in rows]
    faults = [{"policy": row["policy"], **row["first_faults"]} for row in rows]
    setup = report["setup"]
    lines = [
        f"# Agent: {setup['tested']} questions, {setup['runs']} runs", "",
        f"`python -m benchmarks.bench_agent{' --bounds' * report['bounds']}`, commit "
        f"{report['commit'][:12]}; mean and standard deviation over runs; gaps with 95 % intervals "
        f"of a bootstrap over questions. A coin: {report['floor']:.3f}.",
        *grid("Accuracy", shown), *grid("Gaps", report["gaps"]),
        *grid("By kind of question", kinds),
        *grid("The first step that is not as it should be, share of trajectories", faults),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Accuracy by generation, with the others beside it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = report["rows"]
    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    places = range(len(rows))
    after, before = [row["mean"] for row in rows], [row["before_mean"] for row in rows]
    spread = [row["sd"] for row in rows]
    axes.bar(places, after, yerr=spread, capsize=3, color="#1f5fa8", label="answer")
    axes.plot(places, before, "o", color="#c98a1e", label="before the self-checks")
    faultless = [row["first_faults"]["none"] for row in rows]
    chains = [row["chains"] for row in rows]
    axes.plot(places, chains, "s", color="#8a3a6d", label="answers that cannot be guessed")
    axes.plot(places, faultless, "^", color="#3a8a4d", label="all steps as they should be")
    axes.set_xticks(places, [row["policy"] for row in rows], rotation=30, ha="right")
    axes.set_ylabel("accuracy, share")
    axes.set_ylim(0, 1.02)
    axes.legend(loc="upper right")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write and print; 0, or 2 for options that are wrong."""
    parser = argparse.ArgumentParser("python -m benchmarks.bench_agent", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="made-up names, to see that it runs")
    parser.add_argument("--bounds", action="store_true", help="drawn and ideal targets, a seed")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
    parser.add_argument("--folder", type=Path, help="of the database, models and trajectories")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    setup = TINY if options.tiny else Setup()
    commit = provenance.commit()
    torch.set_num_threads(options.threads)
    bench = None
    try:
        nouns = lookups.made_up() if options.tiny else lookups.read(fetch(WORDNET, _say))
        bench = opened(setup, nouns, options.folder or cache_folder() / _mark(setup))
        rows = rows_of(bench, options.bounds)
    except SoarError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        if bench is not None:
            bench.tool.close()
            bench.database.close()
    report = header("agent", commit, setup, ("torch", "tokenizers"))
    last = setup.rest.generations
    kinds = {one.question.id: one.kind for one in bench.tested()}
    report |= {"gaps": gaps(rows, last, kinds), "floor": floor(bench.tested())}
    report |= {
        "bounds": options.bounds,
        "threads": options.threads,
        "faults": asdict(Faults()),
        "rater_wrong": Rater().wrong,
        "rows": rows,
    }
    options.results.mkdir(parents=True, exist_ok=True)
    stem = options.results / setup.name
    plot(report, stem.with_suffix(".png"))
    written(report, table, stem, setup.runs)
    return 0


def _mark(setup: Setup) -> str:
    """The name of a folder: what was made with another setup is not taken for this one's."""
    told = json.dumps([asdict(setup), asdict(Faults())], sort_keys=True)
    return f"{setup.name}-{hashlib.sha256(told.encode()).hexdigest()[:10]}"


def _stage(name: str, stage: str, share: float) -> None:
    _say(name, share)


def _say(stage: str, share: float | None = None) -> None:
    print(f"\r{stage}: {share or 0.0:4.0%}\033[K", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
