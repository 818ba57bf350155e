"""Language models beside the vectors, from training to text: run me beside a running server.

    soardb serve ./data
    python examples/language_models.py [grpc://127.0.0.1:7600]

A target and a draft learn from the documentation of Python's own modules; the draft is distilled
towards the target; both are uploaded, paired, and write with passages of a collection, as a stream.
Needs pip install 'soardb[models]'.
"""

import importlib
import inspect
import sys
import tempfile
from pathlib import Path

import numpy as np

import soardb
from soardb.models.config import DecoderConfig
from soardb.models.decoder import Decoder
from soardb.models.registry import Registry
from soardb.models.tokens import Tokens
from soardb.models.training import TrainConfig, Windows, cross_entropy, descend, row_of
from soardb.pipelines import distillspec

MODULES = "argparse ast asyncio calendar csv datetime decimal email heapq json logging pathlib"


def paragraphs() -> list[str]:
    """Of the documentation of those modules and of what is in them."""
    found: dict[str, None] = {}
    for name in MODULES.split():
        module = importlib.import_module(name)
        for member in (module, *vars(module).values()):
            if text := inspect.getdoc(member):
                found.update(dict.fromkeys(" ".join(p.split()) for p in text.split("\n\n")))
    return [text for text in found if len(text) > 40]


def trained(config: DecoderConfig, row: np.ndarray, steps: int) -> Decoder:
    """A decoder that has read a few windows of the texts."""
    decoder, windows = Decoder(config, seed=0), Windows(row, 32)
    losses = descend(
        [decoder], lambda step: cross_entropy(decoder, windows(16)), TrainConfig(steps, rate=5e-3)
    )
    print(f"width {config.width}: loss {losses[0]:.2f} -> {losses[-1]:.2f} nats a token")
    return decoder.eval()


def main(server: str) -> None:
    texts = paragraphs()
    tokens = Tokens.trained(texts, 512)
    row = row_of(texts, tokens)
    print(f"{len(texts)} paragraphs, {len(row):,} tokens")

    large = trained(DecoderConfig(len(tokens), 64, 2, 4, context=256), row, 150)
    small = trained(DecoderConfig(len(tokens), 16, 1, 2, context=256), row, 60)
    config = distillspec.DistillConfig("fkl", train=TrainConfig(80, 16, rate=5e-3))
    better = distillspec.run(large, small, row, config, end=tokens.end).draft

    with tempfile.TemporaryDirectory() as folder, soardb.connect(server) as db:
        registry = Registry(folder)
        for name, decoder in (("large", large), ("small", small), ("better", better)):
            registry.add_decoder(name, decoder, tokens)
            db.models.upload(name, Path(folder) / "models" / name)

        notes = db.create_collection("documentation", 2, schema={"text": "text"})
        notes.upsert(range(len(texts)), np.ones((len(texts), 2)), [{"text": t} for t in texts])

        for draft in ("small", "better"):
            found = db.models.evaluate("large", draft, texts[:20]).wait()
            print(f"{draft}: {found['alpha']:.0%} of its tokens are kept, tau {found['tau_5']:.2f}")
        print("pairs:", [(pair.target, pair.draft) for pair in db.models.pairs("large")])

        told = {"collection": "documentation", "passages": 1, "longest": 60}
        pieces = db.models.generate("large", "Return a", draft="better", seed=1, **told)
        for piece in pieces:  # as it is written
            print(piece, end="", flush=True)
        print(f"\n{pieces.written.tokens} tokens in {pieces.written.passes} passes")

        greedy = {**told, "temperature": 0.0}
        alone = "".join(db.models.generate("large", "Return a", **greedy))
        pieces = db.models.generate("large", "Return a", draft_passages=True, **greedy)
        assert "".join(pieces) == alone  # a draft changes no word
        print(f"greedily, drafted from the passage: {pieces.written.passes} passes")

        for name in ("large", "small", "better"):
            db.models.delete(name)
        db.drop_collection("documentation")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "grpc://127.0.0.1:7600")
