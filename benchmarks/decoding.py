"""Real decoding of drafts for a target: tokens a pass and seconds, beside the target alone.

soardb.pipelines.speculate -> [decoding.py] -> bench_distillspec.py, bench_pretrained.py, ...
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from soardb.kernels.layout import I64
from soardb.models.decoder import Decoder
from soardb.models.sampling import Sampling
from soardb.models.session import DecoderModel
from soardb.pipelines.distillspec import cost_of
from soardb.pipelines.speculate import ModelDrafter, SpeculateConfig, TextDrafter, decode

__all__ = ["LAWS", "decoded"]

LAWS = {"T = 1": Sampling(1.0), "greedy": Sampling(0.0)}


def decoded(
    target: Decoder,
    drafts: Mapping[str, Decoder],
    stored: I64,
    prompts: Sequence[list[int]],
    longest: int,
    gammas: Sequence[int],
    end: int | None,
) -> list[dict[str, Any]]:
    """One text after the other, by law, draft and block length; the target alone is the first.

    stored  tokens of the texts that the drafter without a model has, as a collection would

    tau is in tokens a pass; time is that of the processor. expected_speedup is the paper's
    tau / (c gamma + 1), where a pass over a block costs what one over a token costs; by_costs is
    tau t / (d gamma + b) with t and b measured apart: passes of the target over a token and over a
    block, and d of the draft, behind the first prompt.
    """
    model, rows = DecoderModel(target), []
    drafters: dict[str, Any] = {name: ModelDrafter(DecoderModel(d)) for name, d in drafts.items()}
    drafters["stored text"] = TextDrafter([stored.tolist()], target.config.vocabulary, 3)
    small = DecoderModel(next(iter(drafts.values())))
    costs = {g: cost_of(model, small, prompts[0], g) for g in gammas}
    token_s = cost_of(model, model, prompts[0], 1).draft_s
    for law_name, law in LAWS.items():
        plain = _timed(model, None, prompts, longest, law, 1, end)
        rows.append({"draft": "none", "law": law_name, "gamma": 0, "tau": 1.0,
                     "ms_a_token": plain["ms"], "speedup": 1.0})  # fmt: skip
        for name, drafter in drafters.items():
            for gamma in gammas:
                found = _timed(model, drafter, prompts, longest, law, gamma, end)
                draft_s = 0.0 if name == "stored text" else costs[gamma].draft_s
                c, block_s = draft_s / costs[gamma].target_s, costs[gamma].target_s
                rows.append(
                    {
                        "draft": name,
                        "law": law_name,
                        "gamma": gamma,
                        "tau": found["tau"],
                        "ms_a_token": found["ms"],
                        "speedup": plain["ms"] / found["ms"],
                        "expected_speedup": found["tau"] / (c * gamma + 1),
                        "by_costs": found["tau"] * token_s / (draft_s * gamma + block_s),
                        "c": c,
                    }
                )
    return rows


def _timed(
    model: DecoderModel,
    drafter: Any,
    prompts: Sequence[list[int]],
    longest: int,
    law: Sampling,
    gamma: int,
    end: int | None,
) -> dict[str, float]:
    tokens = passes = 0
    began = time.process_time()
    for seed, prompt in enumerate(prompts):
        config = SpeculateConfig(gamma, longest, law, seed=seed)
        found = decode(model, drafter or _Nobody(), prompt, config, end)
        tokens, passes = tokens + len(found.tokens), passes + len(found.blocks)
    return {"tau": tokens / passes, "ms": 1000 * (time.process_time() - began) / tokens}


class _Nobody:
    """Proposes nothing, so that the target writes alone."""

    def begin(self) -> None:
        """A new text."""

    def propose(self, read: Any, most: int, sampling: Any, random: Any) -> tuple[list[int], Any]:
        """Nothing."""
        return [], torch.empty(0, 1)
