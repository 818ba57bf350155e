"""An encoder of one's own: pretrained on stored texts, fine-tuned on pairs, searched with. Run me.

    soardb.pipelines.spactor, soardb.pipelines.embed -> [own_encoder.py]

    python examples/own_encoder.py [DIRECTORY]

Notes in English are asked for in German. A small encoder-decoder first reads the notes, as SpacTor
has it; then its encoder learns from pairs of a question and its note; at last it gives the notes
their vectors. Questions of the test ask for combinations that are in no pair.
"""

import itertools
import sys
import tempfile

import soardb
from soardb.models.config import EncoderConfig, T5Config
from soardb.models.registry import Registry
from soardb.models.t5 import T5
from soardb.models.tokens import Tokens
from soardb.models.training import TrainConfig, row_of
from soardb.pipelines import embed, spactor

COLOURS = {"rot": "red", "blau": "blue", "weiss": "white", "schwarz": "black", "gelb": "yellow"}
THINGS = {"Vogel": "bird", "Haus": "house", "Schiff": "ship", "Pferd": "horse", "Stein": "stone"}
PLACES = {"am Fluss": "by the river", "im Wald": "in the wood", "im Dorf": "in the village"}


def main(directory: str) -> None:
    pairs = [
        embed.Pair(f"{thing} {place}, {colour}", f"a {colours} {things} stands {places}")
        for (colour, colours), (thing, things), (place, places) in itertools.product(
            COLOURS.items(), THINGS.items(), PLACES.items()
        )
    ]
    test, train = pairs[::5], [pair for number, pair in enumerate(pairs) if number % 5]
    tokens = Tokens.trained([f"{pair.query} {pair.text}" for pair in pairs], 320)

    t5 = T5(T5Config(EncoderConfig(len(tokens), 4, width=32, layers=2, heads=2, context=64), 1))
    config = spactor.SpactorConfig(tau=0.25, train=TrainConfig(80, 16, 24, 5e-3), looks=(0, 40))
    row = row_of([pair.text for pair in pairs], tokens)
    assert tokens.end is not None
    for look in spactor.run(t5, row, config, end=tokens.end).looks:
        print(f"step {look.step}: {look.clean:.2f} nats a token that was left out")

    contrast = embed.ContrastConfig(train=TrainConfig(300, 20, 24, 3e-3))
    encoder, _ = embed.contrasted(t5.encoder, tokens, train, contrast)
    embedder = embed.Embedder(encoder, tokens)
    for name, one in (("before", embed.Embedder(t5.encoder, tokens)), ("after", embedder)):
        print(f"{name} fine-tuning: nDCG@10 {embed.judged(one, test)['ndcg_10']:.2f}")

    with soardb.connect(directory) as db:
        Registry(directory).add_encoder("finder", encoder, tokens, lineage={"pairs": len(train)})
        notes = db.create_collection("notes", embedder.d, schema={"text": "text"})
        embed.embed_texts(embedder, [pair.text for pair in pairs], notes, "text")
        query = test[3].query
        hits = notes.search(embedder.vectors([query])[0], 3, with_payload=True)
        print(f"{query}:", "; ".join(one["text"] for one in hits.payloads))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(folder)
