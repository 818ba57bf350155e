"""What a step may write, as a grammar that llama.cpp's server holds a model to.

    prompts.py, actions.py -> [grammars.py] -> a Wish, openai_api.py

A model that is too weak for the format cannot miss it: whatever it writes is read by read_output(),
selects links that were shown, each once, and cites those alone. Texts have a longest length, so
that a model which does not know when to stop stops. The grammar is GBNF, llama.cpp's own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import combinations

from soardb.arrays import as_int
from soardb.pipelines.agent.actions import END, items_by_id
from soardb.pipelines.agent.prompts import Case

__all__ = ["grammar"]

_MOST_CHOICES = 64  # of links, each a branch of the grammar

# What no text may hold: the controls, what would end it, and # and \, so that it says END nowhere.
_NEVER = r"\\#\x00-\x1F\x7F-\x9F"
# What a text may not begin with, or it might be blank.
_BLANK = r" \u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000"


def grammar(case: Case, *, longest: int = 600) -> str:
    """GBNF of what may be written at the step of a case, END included.

    longest  characters of a summary and of an answer; thoughts have two thirds, queries and
             comments a quarter
    """
    as_int(longest, "longest", 8, 100_000)
    sizes = {"told": longest, "thoughts": 2 * longest // 3, "query": longest // 4}
    known = sorted(items_by_id(case.past))
    ids = [item.link_id for item in case.results.links] if case.results else []
    if case.step == "decision":
        rules = [
            'root ::= "ACTION_SELECTED = ActionWrapper(thoughts=" thoughts ", action=" action end',
            'action ::= "Search(query=" query ")" | "Terminate()"',
            *_text("query", sizes["query"], []),
        ]
    elif case.step == "summary":
        comments = f"rejected{{0,{len(ids)}}} " if ids else ""
        named = "ACTION_SELECTED: LinkSelection = LinkSelection(grounded_summarization="
        rules = [
            f'root ::= {comments}"{named}" selection end',
            *_selection(ids, sizes["told"]),
            *_rejected(ids, sizes["query"]),
        ]
    elif case.step == "answer":
        rules = [
            'root ::= "ACTION_SELECTED: Answer = Answer(thoughts=" thoughts ", answer=" answer end',
            *_text("answer", sizes["told"], known),
        ]
    else:
        rules = [
            'root ::= comment{0,4} "ACTION_SELECTED: Command = " command end',
            'command ::= "Check_Answer(passed=True" | "Revise_Answer(revised_answer=" answer',
            f'comment ::= "# " first {_upto("letter", sizes["query"])} "\\n"',
            f"first ::= [^\\[{_NEVER}{_BLANK}]",
            f"letter ::= [^\\[{_NEVER}]",
            *_text("answer", sizes["told"], known),
        ]
    if case.step in ("decision", "summary", "answer"):
        rules += _thoughts(sizes["thoughts"])
    return "\n".join([*rules, f"end ::= {json.dumps(')  ' + END)}", ""])


def _thoughts(longest: int) -> list[str]:
    """They may be empty, and say anything."""
    return [
        "thoughts ::= thoughts-double | thoughts-single",
        f'thoughts-double ::= "\\"" {_upto("calm", longest)} "\\""',
        f"""thoughts-single ::= "'" {_upto("bare", longest)} "'" """,
        f'calm ::= [^"{_NEVER}]',
        f"bare ::= [^'{_NEVER}]",
    ]


def _text(name: str, longest: int, ids: Sequence[int]) -> list[str]:
    """Rules of a text in either quotes that is not blank, and cites these links alone."""
    rules = []
    for kind, quote in (("double", '"'), ("single", "'")):
        first, rest = f"{name}-{kind}-first", f"{name}-{kind}-rest"
        cites = f" | {name}-cited" if ids else ""
        rules += [
            f"{name}-{kind} ::= {json.dumps(quote)} {first} {_upto(rest, longest)} "
            f"{json.dumps(quote)}",
            f"{first} ::= [^\\[{quote}{_NEVER}{_BLANK}]{cites}",
            f"{rest} ::= [^\\[{quote}{_NEVER}]{cites}",
        ]
    if ids:
        rules.append(f"{name}-cited ::= {_cited(ids)}")
    return [f"{name} ::= {name}-double | {name}-single", *rules]


def _selection(ids: Sequence[int], longest: int) -> list[str]:
    """A branch for each choice of links, as a summary cites those that it selects alone."""
    most = len(ids)
    while most > 1 and sum(math.comb(len(ids), k) for k in range(most + 1)) > _MOST_CHOICES:
        most -= 1
    choices = [chosen for k in range(most + 1) for chosen in combinations(ids, k)]
    names = [f"choice{number}" for number in range(len(choices))]
    rules = [f"selection ::= {' | '.join(names)}"]
    for name, chosen in zip(names, choices, strict=True):
        listed = f", selected_link_ids=[{', '.join(map(str, chosen))}]"
        rules.append(f'{name} ::= {name}-told ", thoughts=" thoughts {json.dumps(listed)}')
        rules += _text(f"{name}-told", longest, chosen)
    return rules


def _rejected(ids: Sequence[int], longest: int) -> list[str]:
    """A comment on a link that is not selected."""
    if not ids:
        return []
    return [
        f'rejected ::= "# " ({_cited(ids)}) " " {_upto("letter", longest)} "\\n"',
        f"letter ::= [^\\[{_NEVER}]",
    ]


def _cited(ids: Sequence[int]) -> str:
    return " | ".join(json.dumps(f"[link_id={number}]") for number in ids)


def _upto(rule: str, most: int) -> str:
    return f"{rule}{{0,{most}}}"
