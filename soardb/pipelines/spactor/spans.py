"""Span corruption: pieces of a text are left out, and are what is to be written.

    rows of tokens -> [spans.py] -> objective.py, measure.py

A sentinel stands in the text for each piece, and before the piece in what is to be written, which
ends with the token that ends a text. How many tokens, and how many pieces, follows from the length
of a row alone; where they are is drawn so that each way to cut is as likely as any other (Raffel et
al., arXiv 1910.10683, section 3.1.4; density 0.15 and pieces of 3 are theirs).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from soardb.errors import InvalidArgument
from soardb.models.config import EncoderConfig
from soardb.models.encoder import padded
from soardb.options import as_number, as_share

__all__ = ["Corrupted", "Spans", "corrupted", "span_counts", "span_mask"]


@dataclass(frozen=True, slots=True)
class Spans:
    """density: share of the tokens that is left out; mean: tokens of a piece. Both are T5's."""

    density: float = 0.15
    mean: float = 3.0

    def check(self) -> None:
        """InvalidArgument, naming what is wrong."""
        if not 0 < as_share(self.density, "density") < 1:
            raise InvalidArgument(f"expected a density between 0 and 1, got {self.density}")
        if as_number(self.mean, "mean") < 1:
            raise InvalidArgument(f"expected pieces of at least 1 token, got {self.mean}")


@dataclass(frozen=True, slots=True)
class Corrupted:
    """inputs (b, s) with sentinels, targets (b, u); pads behind what is shorter than others."""

    inputs: Tensor
    targets: Tensor


def span_counts(length: int, spans: Spans) -> tuple[int, int]:
    """Of a row: tokens that are left out, and pieces. Both are at least 1, and leave something."""
    if length < 2:
        raise InvalidArgument(f"expected a row of at least 2 tokens, got {length}")
    left_out = min(max(round(length * spans.density), 1), length - 1)
    pieces = min(max(round(left_out / spans.mean), 1), left_out, length - left_out)
    return left_out, pieces


def span_mask(length: int, spans: Spans, random: np.random.Generator) -> npt.NDArray[np.bool_]:
    """(length,) true for what is left out. Begins with a token that stays, ends with one that
    does not: kept and left-out pieces take turns.
    """
    left_out, pieces = span_counts(length, spans)
    lengths = np.empty(2 * pieces, np.int64)
    lengths[0::2] = _cut(length - left_out, pieces, random)
    lengths[1::2] = _cut(left_out, pieces, random)
    return np.repeat(np.tile([False, True], pieces), lengths)


def _cut(length: int, pieces: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """(pieces,) lengths of at least 1 that sum to `length`, each such cut as likely as another."""
    ends = np.sort(random.choice(length - 1, pieces - 1, replace=False)) + 1
    return np.diff(ends, prepend=0, append=length)


def corrupted(
    rows: Sequence[npt.NDArray[np.int64]] | Tensor,
    spans: Spans,
    config: EncoderConfig,
    end: int,
    random: np.random.Generator,
) -> Corrupted:
    """Leave pieces of each row of tokens out.

    rows  of any lengths, or (b, t); text tokens alone, without pads
    end   what the targets end with

    Errors: InvalidArgument for a row of less than 2 tokens, or of more pieces than sentinels.
    """
    inputs, targets = [], []
    for row in rows:
        tokens = np.asarray(row)
        mask = span_mask(len(tokens), spans, random)
        said = _with_sentinels(tokens, ~mask, config)
        inputs.append(_with_sentinels(tokens, mask, config))
        targets.append([*said, end])
    return Corrupted(padded(inputs, config.pad), padded(targets, config.pad))


def _with_sentinels(
    tokens: npt.NDArray[np.int64], gone: npt.NDArray[np.bool_], config: EncoderConfig
) -> list[int]:
    """The tokens with a sentinel, in order, in place of each run of those that are gone."""
    begins = gone & ~np.concatenate([[False], gone[:-1]])
    if (count := int(begins.sum())) > config.sentinels:
        raise InvalidArgument(
            f"expected at most {config.sentinels} pieces, as there are sentinels, got {count} of "
            f"{len(tokens)} tokens; take more sentinels or shorter rows"
        )
    found = np.where(gone, config.first_sentinel + np.cumsum(begins) - 1, tokens)
    kept: list[int] = found[~gone | begins].tolist()
    return kept
