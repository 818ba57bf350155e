"""A teacher, a rater and a judge out of rules, behind the face of a language model.

    compose.py -> [lookup_models.py] -> bench_agent.py, tests

No large model is at hand where this is measured, so what one would be asked is answered by rules
that read the same prompts and know nothing else: no fact, no reference but the one that a judge is
shown. The teacher errs on purpose, each time anew: what it shows is the format and roughly what to
do, as a prompted model would. The rater knows what a good step is, as an instruction says it to a
model, and errs now and then. Perplexities are made up: all samples have the same.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from soardb.errors import InvalidArgument, MalformedOutput
from soardb.pipelines.agent import actions
from soardb.pipelines.agent.actions import (
    ActionWrapper,
    Answer,
    Check_Answer,
    LinkSelection,
    Output,
    ResultItem,
    Revise_Answer,
    Search,
    SelectLink,
    Terminate,
    citations,
    read_output,
    written_output,
)
from soardb.pipelines.agent.compose import Chain, Plan, beginning, plan_of, statement
from soardb.pipelines.agent.language import Completion, Usage, Wish
from soardb.pipelines.agent.prompts import Case, read_case

__all__ = ["Faults", "Judge", "Rater", "Teacher", "ideal", "is_right"]

_SAID = re.compile(r'\[link_id=(\d+)\],? "([^"]+)" (is a kind of|is part of) "([^"]+)"\.')
_RELATION = {"is a kind of": "kind", "is part of": "whole"}
_RIGHT = 4.0  # the score of a sample that is as it should be
_UNKNOWN = "The answer was not found."


@dataclass(frozen=True)
class Faults:
    """How often the teacher does what.

    early, wrong_query, again  decisions: ends too early, searches for another name, or for one that
                               was searched for
    wrong_link, wrong_fact     summaries: another link, another name than the snippet's
    empty                      any step: its thoughts or comments are left out
    short                      answers: what stands before the end of the chain
    blind, harm                checks: a wrong answer passes; a right one is made wrong
    """

    early: float = 0.12
    wrong_query: float = 0.08
    again: float = 0.05
    wrong_link: float = 0.08
    wrong_fact: float = 0.08
    empty: float = 0.1
    short: float = 0.15
    blind: float = 0.5
    harm: float = 0.05

    @classmethod
    def none(cls) -> Faults:
        """It does all as it should be."""
        return cls(*[0.0] * 9)


# ---- what a step should be ----


@dataclass(frozen=True, slots=True)
class _Known:
    """A fact, and the link that says it."""

    other: str
    link: int


_Facts = Mapping[tuple[str, str], _Known]  # of name and relation


def ideal(case: Case) -> Output:
    """What should be written at a case of a composed question, from what can be seen there.

    Errors: MalformedOutput for another question.
    """
    plan = plan_of(case.question)
    if case.step == "summary":
        return _summary(plan, case)
    facts = _facts(case.past)
    if case.step == "decision":
        return Output((), _decision(plan, case, facts))
    said, why = _answer(plan, facts)
    if case.step == "answer":
        return Output((), Answer(why, said))
    return _check(case, said, why)


def is_right(prompt: str, text: str) -> bool:
    """Whether a step is as it should be, from what can be seen there: what the rater calls good."""
    return _score(read_case(prompt), text)[0] >= _RIGHT


def _decision(plan: Plan, case: Case, facts: _Facts) -> ActionWrapper:
    searched = [one.query for one in case.past if isinstance(one, Search)]
    for chain in plan.chains:
        name, relation = _missing(chain, facts)
        if relation is None:
            continue
        what = f"what {beginning(name, relation)}"
        if name not in searched:
            return ActionWrapper(f"I need to know {what}.", Search(name))
        second = beginning(name, relation)
        if second not in searched:
            return ActionWrapper(f"The search did not tell {what}.", Search(second))
        return ActionWrapper(f"It is not to be found {what}.", Terminate())
    return ActionWrapper("Nothing is missing.", Terminate())


def _summary(plan: Plan, case: Case) -> Output:
    links = case.results.links if case.results else ()
    facts = _facts(case.past)
    query = next(one.query for one in reversed(case.past) if isinstance(one, Search))
    for chain in plan.chains:
        name, relation = _missing(chain, facts)
        if relation is None or query not in (name, beginning(name, relation)):
            continue
        for item in links:
            other = _stated(item, name, relation)
            if other is not None:
                chosen = _selected(item, name, relation, other)
                left = _missing(chain, {**facts, (name, relation): _Known(other, item.link_id)})
                more = f'Next is "{left[0]}".' if left[1] else f'"{chain.start}" is done.'
                return Output(_rejected(links, item), replace(chosen, thoughts=more))
    return Output(
        _rejected(links, None),
        LinkSelection("Nothing is selected.", "The search did not help.", ()),
    )


def _answer(plan: Plan, facts: _Facts) -> tuple[str, str]:
    """The answer, and why."""
    ends = [_end(chain, facts) for chain in plan.chains]
    known = [one for one in ends if one is not None]
    if len(known) < len(ends):
        return _UNKNOWN, "Something is missing."
    if plan.how == "chain":
        return _the(known[0].other, known[:1]), f'The end is "{known[0].other}".'
    why = " and ".join(f'"{c.start}": "{k.other}"' for c, k in zip(plan.chains, known, strict=True))
    if plan.how == "same":
        is_same = known[0].other == known[1].other
        return _the("yes" if is_same else "no", known), f"{why}."
    right = [c.start for c, k in zip(plan.chains, known, strict=True) if k.other == plan.wanted]
    return (_the(right[0], known) if right else _UNKNOWN), f"{why}."


def _check(case: Case, said: str, why: str) -> Output:
    """Relevance looks at what is answered, grounding at what is cited."""
    answer = case.answer or ""
    if case.step == "relevance":
        is_good = _core(answer) == _core(said)
    else:
        is_good = citations(answer) == citations(said)
    passed: Any = Check_Answer(True) if is_good else Revise_Answer(said)
    return Output((why,), passed)


def _the(what: str, known: Sequence[_Known]) -> str:
    said = what if what in ("yes", "no") else f'"{what}"'
    return f"The answer is {said} " + " ".join(f"[link_id={one.link}]" for one in known) + "."


def _core(answer: str) -> str:
    """An answer without what it cites, and quotes."""
    said = re.sub(r"\[link_id=[^]]*\]", "", answer).replace('"', "")
    return " ".join(said.split()).rstrip(" .").lower()


def _facts(past: Sequence[Any]) -> dict[tuple[str, str], _Known]:
    """What the summaries say, of links that were selected."""
    found: dict[tuple[str, str], _Known] = {}
    for one in past:
        if isinstance(one, SelectLink):
            for link, name, verb, other in _SAID.findall(one.grounded_summarization):
                found[name, _RELATION[verb]] = _Known(other, int(link))
    return found


def _missing(chain: Chain, facts: _Facts) -> tuple[str, str | None]:
    """The name and relation that are to be looked up next; None at the end of the chain."""
    name = chain.start
    for relation in chain.relations:
        if (name, relation) not in facts:
            return name, relation
        name = facts[name, relation].other
    return name, None


def _end(chain: Chain, facts: _Facts) -> _Known | None:
    name, known = chain.start, None
    for relation in chain.relations:
        known = facts.get((name, relation))
        if known is None:
            return None
        name = known.other
    return known


def _stated(item: ResultItem, name: str, relation: str) -> str | None:
    """What a snippet says of a name, in the words of its own title."""
    if item.link_text != name:
        return None
    _, found, rest = item.snippet.partition(f'{beginning(name, relation)} "')
    other, is_whole, _ = rest.partition('"')
    return other if found and is_whole else None


def _selected(item: ResultItem, name: str, relation: str, other: str) -> LinkSelection:
    said = f"According to [link_id={item.link_id}], {statement(name, relation, other)}."
    return LinkSelection(said, "", (item.link_id,))


def _rejected(links: Sequence[ResultItem], chosen: ResultItem | None) -> tuple[str, ...]:
    return tuple(
        f'[link_id={item.link_id}] is about "{item.link_text}". Not selected.'
        for item in links
        if chosen is None or item.link_id != chosen.link_id
    )


# ---- the teacher ----


@dataclass
class _Scripted:
    """What the three have in common: one text a prompt and sample."""

    name: str = "scripted"
    usage: Usage = field(default_factory=Usage)

    def text(self, prompt: str, random: np.random.Generator) -> str:
        raise NotImplementedError

    def complete(
        self, prompts: Sequence[str], wish: Wish
    ) -> list[list[Completion] | InvalidArgument]:
        """wish.n texts each, by the seed and the prompt."""
        wish.check()
        self.usage.calls += 1
        out: list[list[Completion] | InvalidArgument] = []
        for prompt in prompts:
            random = np.random.default_rng([wish.seed, zlib.crc32(prompt.encode())])
            texts = [self.text(prompt, random) for _ in range(wish.n)]
            out.append([Completion(text, -float(len(text)), len(text)) for text in texts])
        return out


@dataclass
class Teacher(_Scripted):
    """Steps of composed questions, with faults."""

    name: str = "teacher"
    faults: Faults = field(default_factory=Faults)

    def text(self, prompt: str, random: np.random.Generator) -> str:
        """A step, perhaps with a fault."""
        case = read_case(prompt)
        output = _FAULTY[case.step](self.faults, case, ideal(case), random)
        if random.random() < self.faults.empty:
            output = _emptied(output)
        return written_output(case.step, output)


def _emptied(output: Output) -> Output:
    action: Any = output.action
    return Output((), replace(action, thoughts="") if hasattr(action, "thoughts") else action)


def _bad_decision(faults: Faults, case: Case, good: Output, random: np.random.Generator) -> Output:
    action = good.action
    assert isinstance(action, ActionWrapper)
    searched = [one.query for one in case.past if isinstance(one, Search)]
    draw = random.random()
    if isinstance(action.action, Search):
        if searched and draw < faults.early:
            return Output((), ActionWrapper("Nothing is missing.", Terminate()))
        if draw < faults.early + faults.wrong_query:
            return Output((), replace(action, action=Search(_other_name(case, random))))
    if searched and draw > 1 - faults.again:
        return Output((), ActionWrapper("I should look again.", Search(searched[-1])))
    return good


def _bad_summary(faults: Faults, case: Case, good: Output, random: np.random.Generator) -> Output:
    action = good.action
    links = case.results.links if case.results else ()
    assert isinstance(action, LinkSelection)
    draw = random.random()
    if not action.selected_link_ids or draw >= faults.wrong_link + faults.wrong_fact:
        return good
    chosen = next(item for item in links if item.link_id == action.selected_link_ids[0])
    if draw < faults.wrong_link and len(links) > 1:
        others = [item for item in links if item is not chosen]
        item = others[int(random.integers(len(others)))]
        return Output(_rejected(links, item), replace(action, selected_link_ids=(item.link_id,),
                      grounded_summarization=f"According to [link_id={item.link_id}], "
                      f"{item.snippet.partition('.')[0]}."))  # fmt: skip
    verb = next(verb for verb in _RELATION if f" {verb} " in action.grounded_summarization)
    head = action.grounded_summarization.partition(f" {verb} ")[0]
    words = [word for word in re.findall(r"[a-z]+", chosen.snippet) if len(word) > 3]
    wrong = words[int(random.integers(len(words)))] if words else "thing"
    return Output(
        good.comments, replace(action, grounded_summarization=f'{head} {verb} "{wrong}".')
    )


def _bad_answer(faults: Faults, case: Case, good: Output, random: np.random.Generator) -> Output:
    action = good.action
    assert isinstance(action, Answer)
    known = list(_facts(case.past).values())
    if random.random() >= faults.short or not known:
        return good
    one = known[int(random.integers(len(known)))]
    how = plan_of(case.question).how
    what = one.other if how == "chain" else ("no" if "yes" in action.answer else "yes")
    return Output((), replace(action, answer=_the(what, [one])))


def _bad_check(faults: Faults, case: Case, good: Output, random: np.random.Generator) -> Output:
    known = list(_facts(case.past).values())
    if isinstance(good.action, Revise_Answer):
        is_blind = random.random() < faults.blind
        return replace(good, action=Check_Answer(True)) if is_blind else good
    if known and random.random() < faults.harm:
        one = known[int(random.integers(len(known)))]
        return replace(good, action=Revise_Answer(_the(one.other, [one])))
    return good


_FAULTY: Mapping[str, Callable[[Faults, Case, Output, np.random.Generator], Output]] = {
    "decision": _bad_decision,
    "summary": _bad_summary,
    "answer": _bad_answer,
    "relevance": _bad_check,
    "grounding": _bad_check,
}


def _other_name(case: Case, random: np.random.Generator) -> str:
    """A name that can be seen and is not what is missing, or a part of the question."""
    words = [word for word in re.findall(r"[A-Za-z-]+", case.question) if len(word) > 3]
    chosen: str = words[int(random.integers(len(words)))]
    return chosen


# ---- the rater ----


@dataclass
class Rater(_Scripted):
    """Ranks samples of a step by what can be seen; refuses all where none is right, if it may.

    wrong  how often it ranks by chance
    """

    name: str = "rater"
    wrong: float = 0.05

    def text(self, prompt: str, random: np.random.Generator) -> str:
        """Three lines."""
        seen = prompt.partition("Model can see:\n")[2].partition("\nModel output #1:\n")[0]
        parts = re.split(r"\nModel output #\d+:\n", prompt)[1:]
        parts[-1], _, asked = parts[-1].partition("\n\nChoose the best")
        case = read_case(seen)
        is_good = True
        if random.random() < self.wrong:
            order = random.permutation(len(parts)).tolist()
            why = "they are much alike"
        else:
            scored = [_score(case, part) for part in parts]
            order = sorted(range(len(parts)), key=lambda place: -scored[place][0])
            best, why = scored[order[0]]
            is_good = best >= _RIGHT or '"Answer: none"' not in asked
        ranks = [f"#{place + 1}" for place in order]
        answer = ranks[0] if is_good else "none"
        return f"Explanation: {why}\nAnswer: {answer}\nRanking: {' > '.join(ranks)}"


def _score(case: Case, text: str) -> tuple[float, str]:
    """How good a sample is by the rules that the prompt states, and why."""
    try:
        output = read_output(case.step, text)
    except MalformedOutput:
        return -10.0, "it cannot be read"
    good = ideal(case)
    score, why = 0.0, []
    if _essence(output) == _essence(good):
        score, why = _RIGHT, ["it is what is needed now"]
    elif type(output.action) is type(good.action):
        score, why = 1.0, ["it is of the right kind"]
    if not getattr(output.action, "thoughts", "given"):
        score, why = score - 3.0, [*why, "its thoughts are empty"]
    if len(output.comments) < len(good.comments):
        score, why = score - 2.0, [*why, "comments are missing"]
    searched = [one.query for one in case.past if isinstance(one, Search)]
    action = output.action.action if isinstance(output.action, ActionWrapper) else None
    if isinstance(action, Search) and action.query in searched:
        score, why = score - 2.0, [*why, "it searched for that before"]
    return score, ", ".join(why) or "nothing better is there"


def _essence(output: Output) -> Any:
    """What a step does, without its thoughts and comments."""
    one = output.action
    if isinstance(one, ActionWrapper):
        return one.action
    if isinstance(one, LinkSelection):
        return one.selected_link_ids, one.grounded_summarization
    if isinstance(one, Answer):
        return one.answer
    return one


# ---- the judge ----

_CLAIM = re.compile(r"# Your turn\nORIGINAL_QUESTION: str = (.*)\nANSWER: str = (.*)\n"
                    r"REF_ANSWER: str = (.*)\n")  # fmt: skip


@dataclass
class Judge(_Scripted):
    """Whether what stands behind "The answer is" is the reference, but for capitals."""

    name: str = "judge"

    def text(self, prompt: str, random: np.random.Generator) -> str:
        """A comment and a verdict."""
        found = _CLAIM.search(prompt)
        if found is None:
            raise InvalidArgument(f"expected a prompt of the judge, got {prompt[:60]!r}")
        answer, reference = (actions.read_value(part) for part in found.groups()[1:])
        is_implied = _core(answer) == f"the answer is {str(reference).lower()}"
        return (
            f"# The answer says: {_core(answer)}.\n"
            f"Check_Answer(ORIGINAL_QUESTION, ANSWER, REF_ANSWER) = {is_implied}"
        )
