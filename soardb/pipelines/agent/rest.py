"""ReST: a policy answers, a model ranks its steps, the next policy learns from them, and again.

    machine.py, feedback.py, tuning.py, judge.py -> [rest.py] -> cli, benchmarks

Questions are the same in every generation. Each fine-tuning starts from the base model; whether the
right answer was found is never used, but on questions for validation, which say whether to go on
(arXiv 2312.10003, section 3). All that is done is in the collection of trajectories and in the
registry: the same call goes on after it was stopped, and at its end finds nothing to do.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.models.checkpoint import Checkpoint
from soardb.models.registry import Loaded, Registry
from soardb.pipelines.agent.feedback import RankConfig, ranked
from soardb.pipelines.agent.judge import Accuracy, accuracy
from soardb.pipelines.agent.language import LanguageModel
from soardb.pipelines.agent.local import LocalModel
from soardb.pipelines.agent.machine import Agent, AgentConfig, Question
from soardb.pipelines.agent.mixture import Example, Targets, counts, mixture
from soardb.pipelines.agent.questions import expect_apart
from soardb.pipelines.agent.store import Trajectories
from soardb.pipelines.agent.tools import Tool
from soardb.pipelines.agent.trajectory import Ranking, Trajectory
from soardb.pipelines.agent.tuning import TuneConfig, Tuned, tune

__all__ = ["Generation", "Rest", "RestConfig", "evaluate", "fine_tuned", "grow", "rank"]

Progress = Callable[[str, float], None]

_AT_ONCE = 16  # trajectories of one write: what is lost where a growing is stopped


@dataclass(frozen=True, slots=True)
class RestConfig:
    """How generations follow each other.

    generations  at most: 2 in the paper
    repetitions  trajectories of each question and generation
    targets      "ranked", or "perplexity" for the samples that were gone on from
    agent, rank, tune  of growing and measuring, of feedback, of fine-tuning
    growing      of growing alone, where its samples are to differ more than an answer needs
    runs         of the questions for validation: 10 in the paper
    is_patient   whether to go on after a generation that was no better than the one before
    at_once      questions side by side
    """

    generations: int = 2
    repetitions: int = 1
    targets: Targets = "ranked"
    agent: AgentConfig = field(default_factory=AgentConfig)
    growing: AgentConfig | None = None
    rank: RankConfig = field(default_factory=RankConfig)
    tune: TuneConfig = field(default_factory=TuneConfig)
    runs: int = 10
    is_patient: bool = False
    at_once: int = 64

    def check(self) -> None:
        """InvalidArgument, naming what is wrong."""
        as_int(self.generations, "generations", 1, 1000)
        as_int(self.repetitions, "repetitions", 1, 1000)
        as_int(self.runs, "runs", 1, 1000)
        as_int(self.at_once, "at_once", 1, 100_000)
        if self.targets == "perplexity" and self.rank.may_refuse:
            raise InvalidArgument("expected targets 'ranked' beside may_refuse, got 'perplexity'")
        self.agent.check()
        if self.growing is not None:
            self.growing.check()
        self.rank.check()
        self.tune.check()


@dataclass(frozen=True, slots=True)
class Generation:
    """number: 0 is the policy that was brought. examples: by step, of what it learned from."""

    number: int
    model: str
    validation: Accuracy
    examples: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return {
            "number": self.number, "model": self.model, "examples": dict(self.examples),
            "validation": self.validation.to_json(),
        }  # fmt: skip


@dataclass(frozen=True)
class Rest:
    """What the loop works with.

    registry   keeps the policies, as NAME-g1, NAME-g2
    base       the model in it that every fine-tuning starts from
    first      the policy that grows generation 1: prompted, or one of the registry
    shots      examples for it, where it is prompted
    tool       of the agent; rater and judge: models that may be the same, and stay the same
    trajectories, measured  where the ways to questions and to those of the validation are kept
    """

    name: str
    registry: Registry
    base: str
    first: LanguageModel
    tool: Tool
    rater: LanguageModel
    judge: LanguageModel
    trajectories: Trajectories
    measured: Trajectories
    questions: Sequence[Question]
    validation: Sequence[Question]
    config: RestConfig = field(default_factory=RestConfig)
    shots: Mapping[Any, Any] = field(default_factory=dict)

    def run(self, progress: Progress = lambda stage, share: None) -> list[Generation]:
        """All generations, the one that was brought first; the last may be no better.

        Errors: InvalidArgument, and those of the models.
        """
        self.config.check()
        expect_apart(self.questions, self.validation)
        agent = Agent(self.first, self.tool, self.config.agent, self.shots)
        found = [self._measured(0, self.first.name, agent, progress)]
        for number in range(1, self.config.generations + 1):
            name = f"{self.name}-g{number}"
            if name in self.registry.names():
                self._expect_policy(name)
            else:
                examples = self.improve(number, agent, progress)
                fine_tuned(
                    self.registry, self.base, name, examples, self.config.tune, progress,
                    {"generation": number, "targets": self.config.targets, **self._growing()},
                )  # fmt: skip
            agent = Agent(LocalModel(self.registry.load(name)), self.tool, self.config.agent)
            found.append(self._measured(number, name, agent, progress))
            is_better = found[-1].validation.mean > found[-2].validation.mean
            if not (is_better or self.config.is_patient):
                break
        return found

    def improve(self, number: int, agent: Agent, progress: Progress) -> list[Example]:
        """Grow generation `number` with an agent, have it ranked; what is to be learned from."""
        config = self.config
        if config.growing is not None:
            agent = agent.configured(config.growing)
        ids = {
            one.id
            for one in grow(
                agent, self.trajectories, self.questions, number, config.repetitions,
                config.at_once, lambda share: progress(f"grow {number}", share),
            )
        }  # fmt: skip
        if config.targets == "ranked":
            came = rank(
                self.rater, self.trajectories, number, config.rank,
                lambda share: progress(f"rank {number}", share),
            )  # fmt: skip
            if came["unread"] > (read := came["ranked"] + came["refused"]):
                raise InvalidArgument(
                    f"expected rankings in three lines, {came['unread']} of model "
                    f"{self.rater.name} could not be read and {read} could; take "
                    "another rater, or targets='perplexity'"
                )
        # Not all that is there: questions may have been others once, or more.
        grown = [one for one in self.trajectories.all(generation=number) if one.id in ids]
        examples = mixture(grown, config.targets)
        if not examples and any(one.is_complete for one in grown):
            raise InvalidArgument(
                f"expected steps to learn from, {self.rater.name} refused all of generation "
                f"{number}; take another rater, or may_refuse=False"
            )
        if not examples:
            raise InvalidArgument(
                f"expected trajectories that came to an answer, none of {len(grown)} of generation "
                f"{number} did, the last for {grown[-1].error!r}; bring a better first policy"
            )
        return examples

    def _growing(self) -> dict[str, Any]:
        """How the steps came that a policy learns from."""
        growing = asdict(self.config.growing or self.config.agent)
        del growing["seed"]
        rank = self.config.rank
        return {"growing": growing, "shown": rank.shown, "may_refuse": rank.may_refuse}

    def _expect_policy(self, name: str) -> None:
        """InvalidArgument where a policy is there that was made in another way."""
        lineage = self.registry.get(name).lineage
        wanted = {
            "parent": self.base, "targets": self.config.targets, "tune": asdict(self.config.tune),
            **self._growing(),
        }  # fmt: skip
        for part, value in wanted.items():
            if lineage.get(part) != value:
                raise InvalidArgument(
                    f"expected {name!r} with {part} {value!r}, the one that is there has "
                    f"{lineage.get(part)!r}; take another name"
                )

    def _measured(self, number: int, name: str, agent: Agent, progress: Progress) -> Generation:
        found = evaluate(
            agent, self.judge, self.measured, self.validation, number, self.config.runs,
            self.config.at_once, progress=lambda share: progress(f"verify {number}", share),
        )  # fmt: skip
        told: Mapping[str, int] = {}
        if number:
            told = self.registry.get(name).lineage["examples"]
            self.registry.measured(
                name, {"validation": found.mean, "validation_sd": found.sd}
                if self.config.runs > 1 else {"validation": found.mean}
            )  # fmt: skip
        return Generation(number, name, found, told)


def grow(
    agent: Agent,
    trajectories: Trajectories,
    questions: Sequence[Question],
    generation: int,
    repetitions: int = 1,
    at_once: int = 64,
    progress: Callable[[float], None] = lambda share: None,
) -> list[Trajectory]:
    """Have every question answered so many times, but for what is there already: all, no steps.

    Each repetition draws its own samples. Trajectories that failed are kept, and not tried again.
    Errors: InvalidArgument where one is there of another model, text or settings.
    """
    there = trajectories.done(generation)
    wanted = [(one, n) for n in range(repetitions) for one in questions]
    for one, repetition in wanted:
        _expect_same(there.get((one.id, repetition)), one, agent)
    done = sum((one.id, n) in there for one, n in wanted)
    for repetition in range(repetitions):
        missing = [one for one in questions if (one.id, repetition) not in there]
        if not missing:
            continue
        moved = 1_000_003 * (repetition + 1000 * generation)
        drawn = agent.reseeded((agent.config.seed + moved) % 2**63)
        came = drawn.answers(missing, generation=generation, repetition=repetition, at_once=at_once)
        while some := list(itertools.islice(came, _AT_ONCE)):
            trajectories.add(some)
            there |= {(one.question_id, repetition): one for one in some}
            done += len(some)
            progress(done / len(wanted))
    return [there[one.id, repetition] for one, repetition in wanted]


def _expect_same(held: Trajectory | None, question: Question, agent: Agent) -> None:
    """InvalidArgument where a stored trajectory answers something else than is asked now."""
    if held is None:
        return
    asked = {"model": agent.model, "question": question.text, **agent.settings}
    stored = {"model": held.model, "question": held.question, **held.settings}
    for name, value in asked.items():
        if stored.get(name) != value:
            raise InvalidArgument(
                f"expected trajectories with {name} {value!r}, those that are stored under this "
                f"name have {stored.get(name)!r}; take another name"
            )


def rank(
    rater: LanguageModel,
    trajectories: Trajectories,
    generation: int,
    config: RankConfig | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> dict[str, int]:
    """Have the steps of a generation ranked, but for those that are: how many are now, by outcome.

    Rankings that are there stay, whatever they were made with. "ranked"; "refused": all samples are
    bad; "alike": all samples that can be read are one; "unread": no answer could be read.
    """
    found = {"ranked": 0, "refused": 0, "alike": 0, "unread": 0}
    every = [one for one in trajectories.all(generation=generation) if one.is_complete]
    for first in range(0, len(every), _AT_ONCE):
        some = every[first : first + _AT_ONCE]
        steps = [
            (one.id, number, step)
            for one in some
            for number, step in enumerate(one.steps)
            if step.ranking is None
        ]
        held = [step.ranking for one in some for step in one.steps if step.ranking is not None]
        came: dict[tuple[str, int], Ranking] = {}
        asked = 0
        for place, ranking in ranked(rater, [step for _, _, step in steps], config):
            asked += 1
            if ranking is not None:
                came[steps[place][:2]] = ranking
        trajectories.rank(came)
        for ranking in (*held, *came.values()):
            found["ranked" if ranking.is_good else "refused"] += 1
        found["unread"] += asked - len(came)
        found["alike"] += len(steps) - asked
        progress((first + len(some)) / len(every))
    return found


def evaluate(
    agent: Agent,
    judge: LanguageModel,
    measured: Trajectories,
    questions: Sequence[Question],
    generation: int,
    runs: int = 10,
    at_once: int = 64,
    kinds: Mapping[str, str] | None = None,
    progress: Callable[[float], None] = lambda share: None,
    judge_anew: bool = False,
) -> Accuracy:
    """Accuracy over runs, each a trajectory for every question; those that are there are used, and
    so are the verdicts of a judge of this name on them, which are kept.

    judge_anew  drop the verdicts of this name first, as where another judge stands behind it now
    """
    ways = grow(agent, measured, questions, generation, runs, at_once, progress)
    if judge_anew:
        ways = measured.unjudge(ways, judge.name)
    each = len(questions)
    by_run = [ways[first : first + each] for first in range(0, len(ways), each)]
    return accuracy(judge, questions, by_run, kinds, measured.judge)


def fine_tuned(
    registry: Registry,
    base: str,
    name: str,
    examples: Sequence[Example],
    config: TuneConfig | None = None,
    progress: Progress = lambda stage, share: None,
    lineage: Mapping[str, Any] | None = None,
) -> Tuned:
    """Fine-tune a model of the registry on steps, as another one in it; also a smaller student.

    Goes on from a checkpoint where it was stopped, which is deleted at the end.

    Errors: InvalidArgument for a model that is no decoder nor can be one; AlreadyExists.
    """
    config = TuneConfig() if config is None else config
    registry.expect_free(name)
    found: Loaded = registry.load(base)
    decoder = found.decoder
    text = json.dumps([base, asdict(config), [asdict(one) for one in examples]], sort_keys=True)
    told = {"fine_tuned": name, "of": hashlib.sha256(text.encode()).hexdigest()}
    place = registry.folder.parent / "agent" / f"{name}.safetensors"
    tuned = tune(decoder, found.tokens, examples, config, progress, Checkpoint(place, told=told))
    history = {
        **(lineage or {}), "method": "rest", "parent": base, "agent": True,
        "examples": dict(counts(examples)), "too_long": tuned.too_long, "tune": asdict(config),
    }  # fmt: skip
    registry.add_decoder(
        name, decoder, found.tokens, lineage=history,
        metrics={"agent_loss": tuned.losses[-1]},
    )  # fmt: skip
    place.unlink()
    return tuned
