"""Language models: small transformers to read, their tokens, and a registry. Needs PyTorch.

config.py       what a model is made of
decoder.py      the transformer: rotary positions, grouped keys, a cache that goes back
encoder.py      the transformer that sees all of a text, and the vector of one
t5.py           an encoder, and a decoder that looks across at it
cache.py        keys and values of the tokens so far
sampling.py     greedy, temperature, top-k, top-p: logits become the law that is drawn from
session.py      a model that reads on token by token, and forgets
hugging.py      causal models of Hugging Face, with the same face
tokens.py       byte-level BPE
training.py     cross entropy over windows of tokens, and the loop that other losses share
checkpoint.py   the whole state of a training, in one file
flops.py        what a pass costs, counted
info.py         what is told of models and of pairs
scoring.py      log probabilities of whole rows
incoming.py     what an upload may bring
registry.py     models and pairs of them in a database directory

    soardb[models] -> pipelines
"""
