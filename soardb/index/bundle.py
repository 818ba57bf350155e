"""The arrays of an index as one bundle, for the kernels to search.

    ivf.py, live.py -> [bundle.py] -> model.py, lists.py, rows.py, kernels/layout.py

Nothing is copied: the bundle borrows what its owners hold.
"""

from __future__ import annotations

from soardb.index.lists import CodeLists
from soardb.index.model import Model
from soardb.index.rows import Rows
from soardb.kernels.layout import I64, IvfArrays, Metric

__all__ = ["bundle"]


def bundle(model: Model, lists: CodeLists, rows: Rows, ids: I64, metric: Metric) -> IvfArrays:
    """What a search reads of one segment; ids (n,) int64 are what it answers with."""
    upper = model.upper
    return IvfArrays(
        metric=metric,
        vectors=rows.values,
        ids=ids,
        mean=model.mean,
        centroids=model.centroids,
        centroid_scale=upper.scalar.scale,
        centroid_offset=upper.scalar.offset,
        centroid_bias=upper.centroid_bias,
        centroid_codes=upper.centroid_codes,
        slot_list=upper.slot_list,
        cell_codes=upper.cell_codes,
        cell_bias=upper.cell_bias,
        cell_start=upper.cell_start,
        list_start=lists.start,
        list_count=lists.count,
        codes=lists.codes,
        code_rows=lists.rows,
        codebook=model.product.codebook,
        block_dims=model.product.block_dims,
        store=rows.store,
        store_scale=model.scalar.scale,
        store_offset=model.scalar.offset,
        store_bias=rows.store_bias,
        is_spilled=model.choice.soar_lambda > 0,
        spread=model.product.spread,
        rotation_codes=model.rotation[0],
        rotation_scale=model.rotation[1],
        vector_offset=rows.form.scalar.offset,
    )
