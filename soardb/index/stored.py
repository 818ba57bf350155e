"""What a file of a trained SoarIndex holds: to parameters and arrays, and back with every check.

    ivf.py -> [stored.py] -> model.py, lists.py, rows.py

A checksum finds damage; the checks here find a file that was made wrong, before a search trusts its
shapes and offsets. What only costs time to find, such as a row that stands in no list, is left to
SoarIndex.validate.

Nothing here touches a disk: storage/format.py does. What an exact index holds, rows alone, is the
matter of rows.py.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from soardb.errors import CorruptStorage
from soardb.index.form import Form
from soardb.index.lists import CodeLists
from soardb.index.model import Model, store_stride
from soardb.index.plan import BuildParams, Choice
from soardb.index.rows import Rows, expect_array
from soardb.kernels.layout import BLOCK, LINE, Metric, Precision
from soardb.quantization.product import ProductQuantizer
from soardb.quantization.rotation import Rotation
from soardb.quantization.scalar import ScalarQuantizer

__all__ = ["pack", "unpack", "unpack_model"]


def pack(model: Model, lists: CodeLists) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Parameters (JSON values) and arrays of what training learnt and of the lists, no gaps."""
    start, count, codes, code_rows = lists.packed()
    parameters: dict[str, Any] = {
        "choice": asdict(model.choice),
        "typical_norm": model.typical_norm,
    }
    arrays: dict[str, np.ndarray] = {
        "mean": model.mean,
        "places": model.places,
        "codebook": model.product.codebook,
        "block_dims": model.product.block_dims,
        "store_offset": model.scalar.offset,
        "store_scale": model.scalar.scale,
        "list_start": start,
        "list_count": count,
        "codes": codes,
        "code_rows": code_rows,
    }
    if model.centroids is not model.places:
        arrays["centroids"] = model.centroids
    if model.product.rotation is not None:
        arrays["rotation"] = model.product.rotation.codes
        arrays["rotation_scale"] = model.product.rotation.scale
    return parameters, arrays


def unpack(
    parameters: dict[str, Any],
    arrays: dict[str, np.ndarray],
    d: int,
    metric: Metric,
    precision: Precision,
) -> tuple[Model, CodeLists, Rows]:
    """What pack() and Rows.arrays() gave, over the same memory.

    CorruptStorage, KeyError, TypeError, ValueError or OverflowError where the contents are not
    those of a trained index of d, metric and precision. Costs O(nlist * d) and what lists and rows
    check.
    """
    model = unpack_model(parameters, arrays, d, metric)
    rows = Rows.of(arrays, d, store_stride(d), metric == "l2", Form.of(precision, metric, model))
    lists = CodeLists.of(
        arrays["list_start"], arrays["list_count"], arrays["codes"], arrays["code_rows"], len(rows)
    )
    most = 2 if model.choice.soar_lambda > 0 else 1
    if not len(rows) <= len(lists) <= most * len(rows):
        raise CorruptStorage(
            f"expected 1..{most} codes a vector, got {len(lists)} of {len(rows)} vectors"
        )
    return model, lists, rows


def unpack_model(
    parameters: dict[str, Any], arrays: dict[str, np.ndarray], d: int, metric: Metric
) -> Model:
    """The model of what pack() gave, over the same memory. Errors: those of unpack()."""
    _check_arrays(arrays, d, metric)
    rotation = None
    if "rotation" in arrays:
        rotation = Rotation(arrays["rotation"], arrays["rotation_scale"])
    return Model(
        _as_choice(parameters["choice"], metric),
        arrays["mean"],
        float(parameters["typical_norm"]),
        arrays["places"],
        arrays.get("centroids", arrays["places"]),
        ProductQuantizer(arrays["codebook"], arrays["block_dims"], d, metric == "l2", rotation),
        ScalarQuantizer(arrays["store_offset"], arrays["store_scale"]),
    )


def _as_choice(given: dict[str, Any], metric: Metric) -> Choice:
    """The choice that a file holds, checked like parameters of a caller."""
    choice = Choice(**given)
    BuildParams.of(asdict(choice), metric)
    if None in asdict(choice).values():
        raise CorruptStorage(f"expected a choice of every parameter, got {given}")
    return choice


def _check_arrays(arrays: dict[str, np.ndarray], d: int, metric: Metric) -> None:
    """CorruptStorage unless what training learnt has the shapes and values that a search trusts.

    Checksums find damage; this finds a file that was made wrong. Costs O(nlist * d); rows and lists
    check themselves.
    """
    codebook, nlist, nblock = arrays["codebook"], len(arrays["list_start"]), len(arrays["codes"])
    m = len(codebook)
    width = codebook.size // max(16 * m, 1)
    learnt: dict[str, tuple[int, ...]] = {
        "mean": (d,),
        "places": (nlist, d),
        "store_offset": (d,),
        "store_scale": (d,),
        "codebook": (m, width, 16),
    }
    if "centroids" in arrays:
        learnt["centroids"] = (nlist, d)
    coded = d
    if "rotation" in arrays:
        coded = len(arrays["rotation"])
        expect_array(arrays, "rotation", np.uint8, (coded, d))
        learnt["rotation_scale"] = (coded,)
    for name, shape in learnt.items():
        expect_array(arrays, name, np.float32, shape)
        if not np.isfinite(arrays[name]).all():
            raise CorruptStorage(f"expected finite values in array {name!r}, got others")
    expect_array(arrays, "list_start", np.int64, (nlist,))
    expect_array(arrays, "list_count", np.int32, (nlist,))
    expect_array(arrays, "codes", np.uint8, (nblock, m // 8, LINE))
    expect_array(arrays, "code_rows", np.uint32, (nblock * BLOCK,))
    expect_array(arrays, "block_dims", np.int32, (m + 1,))
    dims = arrays["block_dims"].astype(np.int64)
    ends = [coded, coded + 1, coded + 2] if metric == "l2" else [coded]
    if (
        nlist == 0
        or coded == 0
        or coded > d
        or m == 0
        or m % 8
        or dims[0] != 0
        or dims[-len(ends) :].tolist() != ends
        or (np.diff(dims) < 0).any()
        or (np.diff(dims) > width).any()
    ):
        raise CorruptStorage(f"expected sub-spaces that cover {coded} dimensions once, got {dims}")
