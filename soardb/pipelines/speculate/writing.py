"""Writing: text in, text out, piece by piece, with passages before the prompt and a draft behind.

    models/registry.py -> [writing.py] -> decode.py, session.py

A piece is handed out when its bytes are a whole text, so that no character is cut in half.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from soardb import deadline
from soardb.errors import InvalidArgument
from soardb.models.registry import Loaded
from soardb.models.session import generate
from soardb.pipelines.speculate.decode import SpeculateConfig, blocks
from soardb.pipelines.speculate.drafters import Drafter, ModelDrafter, TextDrafter

__all__ = ["Writing", "prompted", "writing"]


class Writing:
    """An iterator of pieces of text; tokens, passes of the target and seconds so far."""

    def __init__(self, found: Loaded, steps: Iterator[list[int]]) -> None:
        self._found = found
        self._steps = steps
        self.tokens = 0
        self.passes = 0
        self.seconds = 0.0

    def __iter__(self) -> Iterator[str]:
        held: list[int] = []
        shown = ""
        began = time.perf_counter()
        for some in self._steps:
            deadline.check()
            self.passes += 1
            self.tokens += len(some)
            self.seconds = time.perf_counter() - began
            held += some
            text = self._found.tokens.decode(held)
            # An unfinished character is shown as a replacement until the rest of it comes.
            whole = text.rstrip("\ufffd")
            if len(whole) > len(shown) and whole.startswith(shown):
                yield whole[len(shown) :]
                shown = whole
        text = self._found.tokens.decode(held)
        if len(text) > len(shown) and text.startswith(shown):
            yield text[len(shown) :]

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return {"tokens": self.tokens, "passes": self.passes, "seconds": self.seconds}


def prompted(prompt: str, context: Sequence[str]) -> str:
    """Passages, a line each, and the prompt after them."""
    return "\n".join([*context, prompt])


def writing(
    found: Loaded,
    prompt: str,
    config: SpeculateConfig,
    *,
    context: Sequence[str] = (),
    draft: Loaded | Sequence[str] | None = None,
) -> Writing:
    """Write on from a prompt with a model of the registry.

    context  passages that go before the prompt; of those that do not fit with what is to be
             written, the last ones are left out
    draft    a model with the same tokens, or passages to draft from: speculative decoding. None:
             one pass of the model a token

    Errors: InvalidArgument, for a prompt that is empty or does not fit by itself.
    """
    config.check()
    tokens = found.tokens
    room = found.model.session().room - config.longest
    some = list(context)
    row = tokens.encode(prompted(prompt, some))
    while some and len(row) > room:
        some.pop()
        row = tokens.encode(prompted(prompt, some))
    if not row or len(row) > room:
        raise InvalidArgument(
            f"expected a prompt of 1 to {max(0, room)} tokens beside {config.longest} to write, "
            f"got {len(row)}"
        )
    if draft is None:
        random = torch.Generator().manual_seed(config.seed)
        plain = generate(found.model, row, config.longest, config.sampling, random, tokens.end)
        return Writing(found, ([token] for token in plain))
    drafter: Drafter
    if isinstance(draft, Loaded):
        if draft.model.vocabulary != found.model.vocabulary:
            raise InvalidArgument(
                f"expected a draft with the {found.model.vocabulary} tokens of the model, got "
                f"{draft.model.vocabulary}"
            )
        drafter = ModelDrafter(draft.model)
    else:
        drafter = TextDrafter(map(tokens.encode, draft), found.model.vocabulary)
    found_blocks = blocks(found.model, drafter, row, config, tokens.end)
    return Writing(found, (block.tokens for block in found_blocks))
