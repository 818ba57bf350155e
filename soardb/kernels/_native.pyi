"""Types of the C++ extension (native/src/module.cpp). Outputs are the caller's arrays."""

from soardb.kernels.layout import (
    F32,
    F64,
    I8,
    I32,
    I64,
    U8,
    U32,
    BoundSearch,
    IvfArrays,
    Values,
)

def level() -> str: ...
def has_level(name: str) -> bool: ...
def use_level(name: str) -> bool: ...
def cpu_features() -> str: ...
def stage_times() -> list[tuple[str, str, int, float]]: ...  # name, covers, calls, ns
def reset_stage_times() -> None: ...
def pool_capacity(keep: int) -> int: ...
def lut16_sums(packed: U8, n: int, lut: U8, out: I32) -> None: ...
def lut16_topk(
    packed: U8, n: int, lut: U8, bias: int, keep: int, keys: I32, positions: U32
) -> int: ...
def dot_u8(rows: U8, query: I8, out: I32) -> None: ...
def rerank_u8(store: U8, rows: U32, query: I8, out: I32) -> None: ...
def score_blocks_u8(blocks: U8, query: I8, out: I32) -> None: ...
def score_f32(vectors: F32, query: F32, metric: int, out: F32) -> None: ...
def rerank_f32(vectors: F32, rows: U32, query: F32, metric: int, out: F32) -> None: ...
def exact_topk(
    vectors: F32, queries: F32, k: int, metric: int, threads: int, scores: F32, rows: I64
) -> None: ...
def topk_u8(
    store: U8,
    bias: F32 | None,
    first: int,
    codes: I8,
    steps: F32,
    keep: int,
    allowed: U8 | None,
    threads: int,
    keys: I32,
    rows: U32,
    counts: I64,
) -> None: ...
def rescore(
    vectors: Values,
    delta: Values,
    scale: F32,
    offset: F32,
    queries: F32,
    metric: int,
    rows: U32,
    bounds: F64,
    counts: I64,
    rest: F64,
    k: int,
    threads: int,
    scores: F32,
    found: I64,
    proven: U8,
) -> None: ...
def store_error(
    vectors: F32, mean: F32, store: U8, scale: F32, offset: F32, threads: int, out: F64
) -> None: ...
def encode(
    residuals: F32,
    directions: F32,
    eta: F32,
    codebook: F32,
    block_dims: I32,
    threads: int,
    out: U8,
) -> None: ...
def list_sums(vectors: F32, lists: I32, threads: int, sums: F32, counts: I64) -> None: ...
def avq_update(vectors: F32, lists: I32, eta: float, threads: int, moved: F64) -> None: ...
def select_topk(scores: F32, k: int, threads: int, values: F32, rows: I64) -> None: ...
def bucket_topk(
    scores: F32,
    buckets: int,
    keep: int,
    k: int,
    threads: int,
    values: F32,
    rows: I64,
    certain: U8,
) -> None: ...
def bucket_survivors(
    scores: F32, buckets: int, keep: int, threads: int, values: F32, rows: I32
) -> None: ...
def quantized_topk(
    codes: U8,
    bits: int,
    n: int,
    scale: F32,
    queries: I8,
    k: int,
    threads: int,
    values: F32,
    rows: I64,
) -> None: ...
def quantized_scores(
    codes: U8, bits: int, n: int, scale: F32, queries: I8, threads: int, out: F32
) -> None: ...
def rescore_topk(
    vectors: F32,
    queries: F32,
    chosen: I64,
    k: int,
    threads: int,
    values: F32,
    rows: I64,
) -> None: ...
def append_codes(
    start: I64,
    count: I32,
    room: I64,
    used: int,
    codes: U8,
    rows: U32,
    parts: I32,
    new_rows: U32,
    new_codes: U8,
) -> tuple[int, int]: ...

class Assigner:
    def __init__(self, centroids: F32) -> None: ...
    def assign(self, vectors: F32, threads: int, out: I32, scores: F32) -> None: ...
    def spill(
        self,
        vectors: F32,
        primary: I32,
        soar_lambda: float,
        include_primary: bool,
        threads: int,
        out: I32,
    ) -> None: ...

class Searcher:
    def __init__(self, arrays: IvfArrays) -> None: ...
    def bind(
        self,
        k: int,
        nprobe: int,
        cellprobe: int,
        collect: int,
        rerank: int,
        refine: int,
        stop: float,
    ) -> BoundSearch: ...
    def search(
        self,
        queries: F32,
        k: int,
        nprobe: int,
        cellprobe: int,
        collect: int,
        rerank: int,
        refine: int,
        stop: float,
        threads: int,
        scores: F32,
        ids: I64,
        allowed: U8 | None,
        scanned: I64 | None,
    ) -> int: ...
