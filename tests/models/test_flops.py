"""Counted operations are those that ran, by PyTorch's own counter.

torch.utils.flop_counter -> [test_flops.py] -> models/flops.py
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.utils import flop_counter

from soardb.errors import InvalidArgument
from soardb.models.config import DecoderConfig
from soardb.models.decoder import Decoder
from soardb.models.flops import Breadth, head_flops, layer_flops, pass_flops
from soardb.models.training import cross_entropy
from tests.models.small import tokens

CONFIGS = {
    "swiglu": DecoderConfig(40, 32, 4, 4, context=24),
    "relu": DecoderConfig(40, 32, 3, 2, mixer="relu", hidden=48, context=24),
    "grouped keys": DecoderConfig(40, 64, 3, 4, key_heads=2, context=24),
    "large vocabulary": DecoderConfig(900, 16, 2, 2, context=24),
}


def counter() -> Any:
    """PyTorch's, told of the attention that runs on processors, which it leaves out."""
    aten = torch.ops.aten

    def forth(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
        count: Any = flop_counter.sdpa_flop_count
        return int(count(query, key, value))

    def back(
        grad: Any, query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any
    ) -> int:
        count: Any = flop_counter.sdpa_backward_flop_count
        return int(count(grad, query, key, value))

    names = {
        aten._scaled_dot_product_flash_attention_for_cpu: forth,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: back,
    }
    return flop_counter.FlopCounterMode(display=False, custom_mapping=names)


def counted(decoder: Decoder, rows: Any, layers: Sequence[int] | None) -> tuple[int, int]:
    """Operations of the loss, and of its gradient."""
    with counter() as forth:
        hidden = decoder(rows[:, :-1], layers=layers)
        loss = functional.cross_entropy(decoder.logits(hidden).flatten(0, 1), rows[:, 1:].flatten())
    with counter() as back:
        loss.backward()  # type: ignore[no-untyped-call]  # so in PyTorch
    return forth.get_total_flops(), back.get_total_flops()


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("rows", [1, 3])
def test_a_pass_costs_what_is_counted_when_it_runs(name: str, rows: int) -> None:
    """Forth and back, of the whole network and of any part of it: to the last operation."""
    config = CONFIGS[name]
    decoder, batch = Decoder(config), tokens(rows, 20, vocabulary=40)
    for layers in (None, [0, config.layers - 1], [1], []):
        forth, back = counted(decoder, batch, layers)
        ran = None if layers is None else len(layers)
        assert pass_flops(config, rows, 19, ran, back=False) == forth
        assert pass_flops(config, rows, 19, ran) == forth + back


def test_cross_entropy_is_the_pass_of_a_training_step() -> None:
    """Its window has one token more than are read."""
    config = CONFIGS["swiglu"]
    with counter() as found:
        cross_entropy(Decoder(config), tokens(2, 24)).backward()  # type: ignore[no-untyped-call]
    assert pass_flops(config, 2, 23) == found.get_total_flops()


def test_a_part_of_a_layer_costs_its_part() -> None:
    """Half of heads, keys and units: half of the layer; the head of the model stays whole."""
    config = CONFIGS["grouped keys"]
    half = Breadth(2, 1, config.units // 2)
    assert 2 * layer_flops(config, 2, 9, half) == layer_flops(config, 2, 9)
    one = pass_flops(config, 2, 9, [half, Breadth.whole(config)])
    assert one == layer_flops(config, 2, 9, half) + layer_flops(config, 2, 9) + head_flops(
        config, 2, 9
    )


def test_what_cannot_run_is_refused() -> None:
    """More layers than there are, and passes over nothing."""
    config = CONFIGS["swiglu"]
    with pytest.raises(InvalidArgument, match="layers"):
        pass_flops(config, 1, 9, 5)
    with pytest.raises(InvalidArgument, match="rows"):
        pass_flops(config, 0, 9)
