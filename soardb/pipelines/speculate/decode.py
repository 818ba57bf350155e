"""Speculative decoding: a drafter proposes, the target reads all of it at once and decides.

    drafters.py, verify.py, sessions -> [decode.py] -> run.py

Greedy decoding, temperature, top-k and top-p are folded into both laws first, so nothing here knows
of them. A block costs one pass of the target, and gives 1 to gamma + 1 tokens.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.models.sampling import Sampling
from soardb.models.session import Model
from soardb.pipelines.speculate.drafters import Drafter
from soardb.pipelines.speculate.verify import Lenience, verified

__all__ = ["Block", "Decoded", "SpeculateConfig", "blocks", "decode"]


@dataclass(frozen=True, slots=True)
class SpeculateConfig:
    """gamma: tokens drafted a block; longest: tokens in all; lenience: exact unless told."""

    gamma: int = 5
    longest: int = 64
    sampling: Sampling = field(default_factory=Sampling)
    lenience: Lenience = field(default_factory=Lenience)
    seed: int = 0

    def check(self) -> None:
        """InvalidArgument, naming what is wrong."""
        as_int(self.gamma, "gamma", 1, 1000)
        as_int(self.longest, "longest", 1, 1_000_000)
        as_int(self.seed, "seed", 0, 2**63 - 1)
        self.sampling.check()
        self.lenience.check()


@dataclass(frozen=True, slots=True)
class Block:
    """One pass of the target. tokens: those that were kept, then the target's own; drafted: how
    many were proposed; draft_s, target_s: seconds of both.
    """

    tokens: list[int]
    drafted: int
    draft_s: float
    target_s: float

    @property
    def kept(self) -> int:
        """Drafted tokens that were kept."""
        return len(self.tokens) - 1


@dataclass(frozen=True, slots=True)
class Decoded:
    """tokens after the prompt; blocks: how they came."""

    tokens: list[int]
    blocks: list[Block]

    @property
    def tau(self) -> float:
        """Block efficiency: tokens a pass of the target, the last block with what was cut off."""
        return sum(len(block.tokens) for block in self.blocks) / max(1, len(self.blocks))


def blocks(
    target: Model,
    drafter: Drafter,
    prompt: Sequence[int],
    config: SpeculateConfig,
    end: int | None = None,
) -> Iterator[Block]:
    """Blocks of tokens after a prompt, as they come; a block ends with `end` where that comes.

    The last block is cut to config.longest. Stops where the target's context is full. Errors:
    InvalidArgument for an empty prompt, or one that fills the context.
    """
    config.check()
    if not len(prompt):
        raise InvalidArgument("expected a prompt of at least one token, got none")
    random = torch.Generator().manual_seed(config.seed)
    session = target.session()
    drafter.begin()
    read = list(prompt)
    if len(read) > 1:
        session.read(read[:-1])
    left = config.longest
    while left > 0 and session.length < session.room:
        # The last token read is not in the cache yet; the target's pass begins with it.
        most = min(config.gamma, left - 1, session.room - session.length - 1)
        began = time.perf_counter()
        drafted: list[int] = []
        q = torch.empty(0)
        if most:
            drafted, q = drafter.propose(read, most, config.sampling, random)
        between = time.perf_counter()
        p = config.sampling.law(session.read([read[-1], *drafted]))
        kept, token = verified(p, q, drafted, random, config.lenience)
        ended = time.perf_counter()
        session.back_to(len(read) + kept)
        tokens = [*drafted[:kept], token]
        if end in tokens:
            tokens = tokens[: tokens.index(end) + 1]
        read += tokens
        left -= len(tokens)
        yield Block(tokens, len(drafted), between - began, ended - between)
        if tokens[-1] == end:
            return


def decode(
    target: Model,
    drafter: Drafter,
    prompt: Sequence[int],
    config: SpeculateConfig,
    end: int | None = None,
) -> Decoded:
    """All blocks at once; see blocks()."""
    found = list(blocks(target, drafter, prompt, config, end))
    return Decoded([token for block in found for token in block.tokens], found)
