"""A small language model that learns by parts which grow from stage to stage. Run me.

    soardb.models, soardb.pipelines.raptr -> [pretrain_in_stages.py]

    python examples/pretrain_in_stages.py [DIRECTORY]

Made-up sentences train a decoder of six layers, three of them at a time at first. The whole one is
evaluated throughout, and kept in the directory's registry in the end. What was counted is compared
with training all six layers in every step.
"""

import random
import sys
import tempfile
from pathlib import Path

import soardb
from soardb.models.config import DecoderConfig
from soardb.models.decoder import Decoder
from soardb.models.registry import Registry
from soardb.models.tokens import Tokens
from soardb.models.training import TrainConfig, Windows, row_of
from soardb.pipelines.raptr import RaptrConfig, run
from soardb.pipelines.raptr.baselines import full, planned_flops

WORDS = [["a", "the", "some"], ["small", "large", "odd"], ["bird", "stone", "song"],
         ["of", "in", "near"], ["the north", "a river", "old times"]]  # fmt: skip


def main(directory: str) -> None:
    soardb.connect(directory).close()  # a database, which may hold models too
    rng = random.Random(0)
    texts = [" ".join(rng.choice(words) for words in WORDS) for _ in range(800)]
    tokens = Tokens.trained(texts[:700], 300)
    held_out = Windows(row_of(texts[700:], tokens), 24)(64)

    shape = DecoderConfig(len(tokens), width=32, layers=6, heads=2, context=64)
    config = RaptrConfig("3-4-5-6", evaluate_every=40, train=TrainConfig(160, 16, 24, 5e-3))
    place = Path(directory) / "pretraining" / "checkpoint.safetensors"
    found = run(
        Decoder(shape), row_of(texts[:700], tokens), config, held_out=held_out, checkpoint=place
    )

    for one in found.log.evaluations:
        print(f"{one.steps:>4} steps  {one.flops / 1e9:6.1f} GFLOP  {one.loss:.3f} nats a token")
    for stage in found.log.transitions:
        print(
            f"layers {stage.before:g} -> {stage.after:g}: what learns goes from "
            f"{stage.loss_before:.3f} to {stage.loss_after:.3f}"
        )
    times = ", ".join(f"{layers}: {ms:.1f}" for layers, ms in found.log.step_ms().items())
    print(f"ms a step by the layers that ran: {times}")
    share = found.log.flops / planned_flops(full(config, shape), shape)
    print(f"{share:.2f} of what all layers in every step would cost")

    entry = Registry(directory).add_decoder(
        "grown", found.decoder, tokens, lineage={"method": "RaPTr", "config": config.to_json()}
    )
    print(f"kept as {entry.name}, {entry.parameters:,} parameters")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(folder)
