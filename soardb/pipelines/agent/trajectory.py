"""What happened: every step of an answer with its samples, in a form that is kept and learned from.

    machine.py -> [trajectory.py] -> store.py, feedback.py, judge.py

Plain values all the way down; to_json() and of_json() are each other's inverse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from soardb.pipelines.agent.actions import Step
from soardb.pipelines.agent.language import Completion
from soardb.pipelines.agent.tools import Snippet

__all__ = ["Ranking", "Sample", "StepRecord", "ToolUse", "Trajectory", "Verdict"]


@dataclass(frozen=True, slots=True)
class Sample:
    """A completion, and why it cannot be read; None where it can."""

    text: str
    logprob: float
    tokens: int
    is_finished: bool
    error: str | None = None

    @property
    def perplexity(self) -> float:
        """exp(-logprob / tokens)."""
        return Completion(self.text, self.logprob, self.tokens).perplexity


@dataclass(frozen=True, slots=True)
class Ranking:
    """How a step's samples were ranked by a model.

    explanation  in its words
    order        numbers of samples, best first; of equal texts the first stands for all
    model        that ranked
    is_good      whether the best is good: where not, the step is not learned from
    """

    explanation: str
    order: tuple[int, ...]
    model: str
    is_good: bool = True

    @property
    def best(self) -> int:
        """The number of the best sample."""
        return self.order[0]


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A search and what it found, best first, each under the id of its link."""

    query: str
    found: tuple[Snippet, ...]
    links: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One call of the model.

    prompt   that was asked, without examples
    samples  all that came; chosen: the number of the one that was gone on from
    tool     of a decision that searched
    ranking  where its samples were ranked
    """

    step: Step
    prompt: str
    samples: tuple[Sample, ...]
    chosen: int
    tool: ToolUse | None = None
    ranking: Ranking | None = None

    @property
    def text(self) -> str:
        """Of the chosen sample."""
        return self.samples[self.chosen].text

    @property
    def target(self) -> str:
        """What is learned from the step: the sample that was ranked best, else the chosen one."""
        return self.samples[self.chosen if self.ranking is None else self.ranking.best].text


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a model said of an answer, or a draft: whether it implies a reference."""

    judge: str
    answer: str
    reference: str
    is_implied: bool


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The way to one answer.

    id           of this way; question_id: of its question
    model        that took the steps
    generation   of the policy; repetition: which of several ways to the same question
    draft, after_relevance, answer  before the self-checks, after the first, after both
    links        the document of each link id
    settings     of the agent: all that it depends on but model, question and seed
    searches     how many there were
    error        why it ended early, as "Name: message"; None for a complete one
    seconds      that it took
    verdicts     of judges, on the answer and on the draft
    """

    id: str
    question_id: str
    question: str
    model: str
    generation: int = 0
    repetition: int = 0
    steps: tuple[StepRecord, ...] = ()
    draft: str | None = None
    after_relevance: str | None = None
    answer: str | None = None
    links: Mapping[int, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    searches: int = 0
    error: str | None = None
    seconds: float = 0.0
    verdicts: tuple[Verdict, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether it came to an answer."""
        return self.error is None and self.answer is not None

    def with_steps(self, steps: tuple[StepRecord, ...]) -> Self:
        """The same with other steps."""
        return replace(self, steps=steps)

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        told = asdict(self)
        told["links"] = {str(number): document for number, document in self.links.items()}
        return told

    @classmethod
    def of_json(cls, told: Mapping[str, Any]) -> Self:
        """From to_json(). Errors: KeyError, TypeError for what it did not make."""
        held = dict(told)
        held["links"] = {int(number): document for number, document in told["links"].items()}
        held["steps"] = tuple(map(step_of, told["steps"]))
        held["verdicts"] = tuple(Verdict(**one) for one in told.get("verdicts", ()))
        return cls(**held)


def step_of(told: Mapping[str, Any]) -> StepRecord:
    """A step from its plain values."""
    tool, ranking = told["tool"], told["ranking"]
    return StepRecord(
        step=told["step"],
        prompt=told["prompt"],
        samples=tuple(Sample(**one) for one in told["samples"]),
        chosen=told["chosen"],
        tool=None if tool is None else ToolUse(
            tool["query"], tuple(Snippet(**one) for one in tool["found"]), tuple(tool["links"])
        ),
        ranking=None if ranking is None else Ranking(
            ranking["explanation"], tuple(ranking["order"]), ranking["model"],
            ranking.get("is_good", True),
        ),
    )  # fmt: skip
