"""Whether an answer implies a reference, as a model judges; and accuracy over many runs.

    trajectory.py, language.py -> [judge.py] -> rest.py, cli, benchmarks

The judge is a call of its own, with five examples, and stays the same whatever policy is measured
(arXiv 2312.10003, section 4: exact match says little of answers that are paragraphs). One run
is one trajectory for each question; between policies only means over several runs tell.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from soardb.errors import InvalidArgument, MalformedOutput
from soardb.pipelines.agent.actions import END
from soardb.pipelines.agent.language import LanguageModel, Wish
from soardb.pipelines.agent.machine import Question
from soardb.pipelines.agent.trajectory import Trajectory, Verdict
from soardb.pipelines.stored import plain

__all__ = ["Accuracy", "Claim", "accuracy", "agreement", "judged", "judging_prompt", "read_verdict"]

_AT_ONCE = 16  # trajectories whose verdicts are kept together: what is lost where a judge fails


@dataclass(frozen=True, slots=True)
class Claim:
    """Is the question answered as the reference says?"""

    question: str
    answer: str
    reference: str


_EXAMPLES: tuple[tuple[Claim, str, bool], ...] = (
    (
        Claim("Which planet is the third from the Sun?",
              "It is Earth [link_id=2], behind Mercury and Venus [link_id=1].", "Earth"),
        "The answer names Earth as the planet, which is the reference.", True,
    ),
    (
        Claim("Who wrote the novel that begins on a whaling ship called the Pequod?",
              "The Pequod is the ship of captain Ahab, who hunts a white whale.",
              "Herman Melville"),
        "The answer tells of the ship and names no author, so nobody could take the reference "
        "from it.", False,
    ),
    (
        Claim("Is the tomato a fruit in the sense of botany?",
              "Botanists count it among berries [link_id=1], although cooks call it a vegetable.",
              "yes"),
        "A berry is a fruit, so the answer implies the reference.", True,
    ),
    (
        Claim("In which year did the ship Titanic sink?",
              "It is not clear which ship is meant. Please tell more about it.", "1912"),
        "The answer asks for more and gives no year.", False,
    ),
    (
        Claim("What is the capital of the country whose largest city is Istanbul?",
              "Istanbul is the largest city of Turkey [link_id=1]; the capital is Istanbul.",
              "Ankara"),
        "The answer says Istanbul, which is another city than the reference.", False,
    ),
)  # fmt: skip

_VERDICT = re.compile(
    r"^Check_Answer\(ORIGINAL_QUESTION, ANSWER, REF_ANSWER\)\s*=\s*(True|False)\b", re.MULTILINE
)
_HEAD = f'''"""Check whether an answer implies a reference.

Say in comments what ANSWER claims and whether REF_ANSWER follows from it. An answer that does not
answer, asks back, or is merely about the same things does not imply the reference. For questions
of yes or no it need not use the word. End with {END}
"""
'''


def judging_prompt(claim: Claim) -> str:
    """What the judge writes on from."""
    parts = [_HEAD]
    for number, (one, reason, is_implied) in enumerate(_EXAMPLES, 1):
        parts.append(f"\n# Example {number}\n{_fields(one)}# {reason}\n{_verdict(is_implied)}\n")
    return "".join([*parts, "\n# Your turn\n", _fields(claim)])


def read_verdict(text: str) -> bool:
    """Errors: MalformedOutput without a verdict, or with several that differ."""
    found = set(_VERDICT.findall(text.partition(END)[0]))
    if len(found) != 1:
        raise MalformedOutput(f"expected Check_Answer(...) = True or False, got {text[:80]!r}")
    return found == {"True"}


def judged(
    model: LanguageModel, claims: Sequence[Claim], *, tries: int = 2, longest: int = 256
) -> list[bool | None]:
    """Whether each answer implies its reference. Equal claims are asked about once.

    None where no verdict could be read, however often it was asked for, or the claim does not fit.
    """
    every = list(dict.fromkeys(claims))
    verdicts: dict[Claim, bool] = {}
    for attempt in range(tries):
        going = [claim for claim in every if claim not in verdicts]
        wish = Wish(1, 0.0 if attempt == 0 else 0.5, longest, (END,), attempt)
        told = model.complete([judging_prompt(claim) for claim in going], wish) if going else []
        for claim, came in zip(going, told, strict=True):
            if isinstance(came, InvalidArgument):
                continue
            with contextlib.suppress(MalformedOutput):  # asked again, or None in the end
                verdicts[claim] = read_verdict(came[0].text)
    return [verdicts.get(claim) for claim in claims]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Shares of questions that were answered rightly.

    runs     of each run, after the self-checks
    before   of each run, by the drafts
    gained   of each run, the one less the other
    failed   share of trajectories that came to no answer; they count as wrong
    unread   share of verdicts on answers that could not be read; they count as wrong
    searches mean of a trajectory
    by_kind  mean share of questions of each kind, where kinds were told
    by_question  share of runs in which each was answered rightly, by its id
    """

    runs: tuple[float, ...]
    before: tuple[float, ...]
    failed: float
    unread: float
    searches: float
    by_kind: Mapping[str, float]
    by_question: Mapping[str, float]

    @property
    def gained(self) -> tuple[float, ...]:
        """Of each run."""
        return tuple(a - b for a, b in zip(self.runs, self.before, strict=True))

    @property
    def mean(self) -> float:
        """Over runs."""
        return float(np.mean(self.runs))

    @property
    def sd(self) -> float:
        """Over runs, n - 1; nan of one."""
        return _sd(self.runs)

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        told = {
            "mean": self.mean, "sd": self.sd, "runs": list(self.runs),
            "before_mean": float(np.mean(self.before)), "before_runs": list(self.before),
            "gained_mean": float(np.mean(self.gained)), "gained_sd": _sd(self.gained),
            "failed": self.failed, "unread": self.unread, "searches": self.searches,
            "by_kind": dict(self.by_kind), "by_question": dict(self.by_question),
        }  # fmt: skip
        found: dict[str, Any] = plain(told)
        return found


def accuracy(
    judge: LanguageModel,
    questions: Sequence[Question],
    runs: Iterable[Sequence[Trajectory]],
    kinds: Mapping[str, str] | None = None,
    keep: Callable[[Mapping[str, Sequence[Verdict]]], object] = lambda verdicts: None,
) -> Accuracy:
    """Judge runs of trajectories over the same questions.

    kinds  of questions by id. A question of several references is right where one is implied
    keep   gets new verdicts by trajectory, a few trajectories at a time, as Trajectories.judge does

    A draft counts as what it is worth though a self-check after it failed. The same claim is asked
    about once, and not at all where one of these trajectories has a verdict of this judge on it.
    What could not be read is no verdict.

    Errors: InvalidArgument where a run does not answer each question once, or one has no reference.
    """
    held = {one.id: one for one in questions}
    if bad := next((one.id for one in questions if not one.references), None):
        raise InvalidArgument(f"expected a reference for each question, {bad!r} has none")
    after: list[float] = []
    before: list[float] = []
    of_kind: dict[str, list[bool]] = {}
    of_question: dict[str, list[bool]] = {one.id: [] for one in questions}
    unread: list[bool] = []
    every: list[Trajectory] = []
    runs = list(runs)
    verdicts = _told(judge.name, [one for run in runs for one in run])
    for run in runs:
        if sorted(one.question_id for one in run) != sorted(held):
            raise InvalidArgument(
                f"expected a trajectory for each of {len(held)} questions, got {len(run)}"
            )
        _judge(judge, held, run, verdicts, keep)
        answers = [_claims(held, one, _answer(one)) for one in run]
        drafts = [_claims(held, one, one.draft) for one in run]
        right = [any(verdicts[claim] for claim in claims) for claims in answers]
        unread += [verdicts[claim] is None for claims in answers for claim in claims]
        after.append(float(np.mean(right)))
        before.append(float(np.mean([any(verdicts[claim] for claim in some) for some in drafts])))
        for one, is_right in zip(run, right, strict=True):
            of_question[one.question_id].append(is_right)
            if kinds is not None:
                of_kind.setdefault(kinds[one.question_id], []).append(is_right)
        every += run
    if not every:
        raise InvalidArgument("expected runs to judge, got none")
    return Accuracy(
        tuple(after),
        tuple(before),
        float(np.mean([not one.is_complete for one in every])),
        float(np.mean(unread)) if unread else 0.0,
        float(np.mean([one.searches for one in every])),
        {kind: float(np.mean(right)) for kind, right in sorted(of_kind.items())},
        {id_: float(np.mean(right)) for id_, right in of_question.items()},
    )


def agreement(one: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """Pearson and Spearman of two measures of the same agents, as of a judge and of people.

    Errors: InvalidArgument for fewer than three, or where one does not vary.
    """
    a, b = np.asarray(one, float), np.asarray(other, float)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 3:
        raise InvalidArgument(f"expected two measures of three or more, got {len(a)} and {len(b)}")
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        raise InvalidArgument("expected measures that vary, one is the same for all")
    return {
        "pearson": float(np.corrcoef(a, b)[0, 1]),
        "spearman": float(np.corrcoef(_ranks(a), _ranks(b))[0, 1]),
    }


def _told(judge: str, ways: Sequence[Trajectory]) -> dict[Claim, bool | None]:
    """Verdicts of that judge that trajectories have."""
    return {
        Claim(one.question, verdict.answer, verdict.reference): verdict.is_implied
        for one in ways
        for verdict in one.verdicts
        if verdict.judge == judge
    }


def _judge(
    judge: LanguageModel,
    questions: Mapping[str, Question],
    run: Sequence[Trajectory],
    verdicts: dict[Claim, bool | None],
    keep: Callable[[Mapping[str, Sequence[Verdict]]], object],
) -> None:
    """Add to the verdicts those on the answers and drafts of a run; keep those that are new."""
    for first in range(0, len(run), _AT_ONCE):
        part = run[first : first + _AT_ONCE]
        claims = [
            dict.fromkeys(
                [*_claims(questions, one, _answer(one)), *_claims(questions, one, one.draft)]
            )
            for one in part
        ]
        asked = dict.fromkeys(claim for some in claims for claim in some)
        missing = [claim for claim in asked if claim not in verdicts]
        verdicts |= zip(missing, judged(judge, missing), strict=True)
        new: dict[str, list[Verdict]] = {}
        for one, some in zip(part, claims, strict=True):
            for claim in some:
                is_implied = verdicts[claim]
                if is_implied is None:
                    continue
                verdict = Verdict(judge.name, claim.answer, claim.reference, is_implied)
                if verdict not in one.verdicts:
                    new.setdefault(one.id, []).append(verdict)
        if new:
            keep(new)


def _answer(one: Trajectory) -> str | None:
    """After both checks; None where it failed."""
    return one.answer if one.is_complete else None


def _claims(questions: Mapping[str, Question], one: Trajectory, answer: str | None) -> list[Claim]:
    """That an answer implies any of the references."""
    if answer is None:
        return []
    return [Claim(one.question, answer, told) for told in questions[one.question_id].references]


def _sd(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def _ranks(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Ranks, those of equals their mean."""
    _, inverse, count = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(count)
    means: np.ndarray[Any, Any] = (ends - (count - 1) / 2)[inverse]
    return means


def _fields(claim: Claim) -> str:
    return (
        f"ORIGINAL_QUESTION: str = {claim.question!r}\nANSWER: str = {claim.answer!r}\n"
        f"REF_ANSWER: str = {claim.reference!r}\n"
    )


def _verdict(is_implied: bool) -> str:
    return f"Check_Answer(ORIGINAL_QUESTION, ANSWER, REF_ANSWER) = {is_implied}  {END}"
