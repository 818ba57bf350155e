"""Speculative decoding: a target's own text, in fewer of its passes.

decode.py    blocks of tokens, drafted and verified
verify.py    accept or draw the residual; lossy modes
drafters.py  a small model, or stored text
writing.py   text in, text out, piece by piece
"""

from soardb.pipelines.speculate.decode import Block, Decoded, SpeculateConfig, blocks, decode
from soardb.pipelines.speculate.drafters import Drafter, ModelDrafter, TextDrafter
from soardb.pipelines.speculate.verify import Lenience, acceptance, residual, verified
from soardb.pipelines.speculate.writing import Writing, prompted, writing

__all__ = [
    "Block",
    "Decoded",
    "Drafter",
    "Lenience",
    "ModelDrafter",
    "SpeculateConfig",
    "TextDrafter",
    "Writing",
    "acceptance",
    "blocks",
    "decode",
    "prompted",
    "residual",
    "verified",
    "writing",
]
