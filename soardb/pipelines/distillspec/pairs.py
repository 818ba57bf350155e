"""A draft with its target, of whatever kind both are: measured on texts, as a registry keeps it.

    models/registry.py -> [pairs.py] -> measure.py; cli, a server

What measure.py does for batches through decoders, one prompt at a time through sessions, so that
models of Hugging Face are measured too, and whoever waits can end it between two tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from soardb.arrays import as_int
from soardb.errors import InvalidArgument
from soardb.models.registry import Loaded
from soardb.models.sampling import Sampling, drawn
from soardb.pipelines.distillspec.measure import cost_of, kept_of, metrics_of, tau_of
from soardb.pipelines.speculate.verify import acceptance

__all__ = ["evaluated"]

Progress = Callable[[str, float], None]


def evaluated(
    target: Loaded,
    draft: Loaded,
    texts: Sequence[str],
    *,
    gamma: int = 5,
    length: int = 32,
    prompt_tokens: int = 16,
    sampling: Sampling | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Metrics of a pair: alpha, tau_<gamma>, c, speedup_<gamma>, tokens; see Agreement and Cost.

    texts     the first prompt_tokens of each are a prompt, after which the target writes `length`
    sampling  of both laws; plain unless told
    progress  called at each token; what it raises ends the measuring

    Costs a pass of the target a token. Errors: InvalidArgument.
    """
    as_int(gamma, "gamma", 1, 1000)
    as_int(length, "length", 1, 1_000_000)
    as_int(prompt_tokens, "prompt_tokens", 1, 1_000_000)
    as_int(seed, "seed", 0, 2**63 - 1)
    law = sampling or Sampling()
    law.check()
    if target.model.vocabulary != draft.model.vocabulary:
        raise InvalidArgument(
            f"expected a draft with the {target.model.vocabulary} tokens of the target, got "
            f"{draft.model.vocabulary}"
        )
    room = min(target.model.session().room, draft.model.session().room)
    if prompt_tokens + max(length, gamma + 1) > room:
        raise InvalidArgument(
            f"expected prompt_tokens and length, or gamma, that fit in {room} tokens together, "
            f"got {prompt_tokens}, {length} and {gamma}"
        )
    prompts = [row for row in (target.tokens.encode(t)[:prompt_tokens] for t in texts) if row]
    if not prompts:
        raise InvalidArgument("expected texts to begin with, got none")
    random = torch.Generator().manual_seed(seed)
    kept = torch.zeros(len(prompts), length, dtype=torch.float64)
    lengths, overlaps = torch.zeros(len(prompts), dtype=torch.long), []
    for i, prompt in enumerate(prompts):

        def told(share: float, done: int = i) -> None:
            if progress is not None:
                progress("evaluate", (done + share) / len(prompts))

        said, p = _written(target, prompt, length, law, random, told)
        with torch.inference_mode():
            read = draft.model.session().read([*prompt, *said[:-1]])
            q = law.law(read[len(prompt) - 1 :])
        kept[i, : len(said)] = kept_of(p, q, torch.tensor(said))
        lengths[i] = len(said)
        overlaps.append(acceptance(p, q))
    alpha = float(torch.cat(overlaps).mean())
    cost = cost_of(target.model, draft.model, prompts[0], gamma, repeats=10)
    found = metrics_of(alpha, tau_of(kept, lengths, gamma), gamma, cost)
    return {**found, "tokens": float(lengths.sum())}


def _written(
    target: Loaded,
    prompt: list[int],
    length: int,
    law: Sampling,
    random: torch.Generator,
    told: Callable[[float], None],
) -> tuple[list[int], Tensor]:
    """Up to `length` tokens of the target, the end included, and its law before each."""
    session = target.model.session()
    laws: list[Tensor] = []
    said: list[int] = []
    read = prompt
    while len(said) < length:
        told(len(said) / length)
        laws.append(law.law(session.read(read)[-1]))
        said.append(int(drawn(laws[-1], random)))
        read = said[-1:]
        if said[-1] == target.tokens.end:
            break
    return said, torch.stack(laws)
