// A batch by the lists, each list read once for all queries that visit it.
//
//   kernels_common.inl -> [list_major.inl] <- list_major.cpp, through the table of the level
//
// Each query is prepared and scans its best lists by itself, which gives it a threshold; the other
// lists are then taken in memory order, a piece that fits the first-level cache at a time, and every
// query that wants the list scans the piece. A query's pool sees the codes that it would see alone,
// in another order: it keeps the same ones but where the last of them tie.

static int prepare_lists(const Ivf& x, const Plan& plan, const float* raw, Scratch& s,
                         ListQuery& out) {
  float squared = lane_dot(raw, raw, x.d);
  if (!(squared <= __FLT_MAX__)) return kNotFinite;
  const float lift = squared < 0x1p-100f ? 0x1p100f : 1.0f;
  const float* query = raw;
  for (int64_t i = 0; i < x.d; ++i)
    s.centred[i] = x.metric == kL2 ? raw[i] - x.mean[i] : raw[i] * lift;
  if (x.metric == kCosine) {
    squared = lane_dot(s.centred, s.centred, x.d);
    if (squared == 0) return kZeroVector;
    const float inverse = 1.0f / __builtin_sqrtf(squared);
    for (int64_t i = 0; i < x.d; ++i) s.query[i] = s.centred[i] = s.centred[i] * inverse;
    query = s.query;
  }
  for (int64_t i = x.d; i < x.block_dims[x.m]; ++i) s.centred[i] = 1.0f;
  const int64_t lists = best_lists(x, plan, s);
  float span, floor;
  build_lut(x, s.centred, s, &span, &floor);

  float peak = 0;
  for (int64_t i = 0; i < lists; ++i) {
    const float size = s.order_scores[i] < 0 ? -s.order_scores[i] : s.order_scores[i];
    peak = size > peak ? size : peak;
  }
  const float least = (peak + (floor < 0 ? -floor : floor)) * 0x1p-20f;
  const float widest = span > least ? span : least;
  const double step = widest >= kTiny ? static_cast<double>(255.0f / widest) : 0.0;
  if (widest > span) __builtin_memset(s.lut, 0, 16 * x.m);
  for (int64_t i = 0; i < lists; ++i) {
    out.lists[i] = x.slot_list[s.order[i]];
    out.biases[i] = round_to_int(static_cast<double>(s.order_scores[i] + floor) * step);
  }
  out.nlists = lists;
  __builtin_memcpy(out.lut, s.lut, 16 * x.m);
  __builtin_memcpy(out.centred, s.centred, x.d * sizeof(float));
  __builtin_memcpy(out.query, query, x.d * sizeof(float));
  out.size = 0;
  out.threshold = INT32_MIN;
  out.open = true;
  out.scanned = 0;
  return kOk;
}

// Blocks [from, to) of a list, base's before delta's, into the pool of one query.
static void scan_piece(const Ivf& x, const Plan& plan, const Filter* filter, ListQuery& q,
                       int32_t list, int32_t bias, int64_t capacity, bool is_delta, int64_t from,
                       int64_t to) {
  const int64_t lines = x.m / 8, bytes = lines * kLine;
  const int64_t start = is_delta ? x.delta_start[list] : x.list_start[list];
  const int64_t count = is_delta ? x.delta_count[list] : x.list_count[list];
  const int64_t first = start * kBlock + from;
  const Codes codes{(is_delta ? x.delta_codes : x.codes) + (start + from / kBlock) * bytes,
                    (is_delta ? x.delta_code_rows : x.code_rows) + first,
                    (to < count ? to : count) - from,
                    static_cast<uint32_t>((is_delta ? x.ncode : 0) + first)};
  Pool pool{q.keys, q.slots, plan.collect, capacity, q.size, q.threshold, q.open};
  q.scanned += codes.n;
  if (filter)
    scan_allowed(pool, codes, lines, q.lut, bias, *filter);
  else
    scan_list(pool, codes, lines, q.lut, bias);
  q.size = pool.size;
  q.threshold = pool.threshold;
  q.open = pool.open;
}

static void finish_lists(const Ivf& x, const Plan& plan, ListQuery& q, Scratch& s, float* scores,
                         int64_t* ids) {
  Pool pool{q.keys, q.slots, plan.collect, s.pool, q.size, q.threshold, q.open};
  settle(pool);
  __builtin_memcpy(s.keys, q.keys, pool.size * sizeof(int32_t));
  __builtin_memcpy(s.slots, q.slots, pool.size * sizeof(uint32_t));
  __builtin_memcpy(s.centred, q.centred, x.d * sizeof(float));
  for (int64_t i = x.d; i < x.block_dims[x.m]; ++i) s.centred[i] = 1.0f;
  if (x.delta_start)
    rank_rows<true>(x, plan, q.query, s, pool.size, scores, ids);
  else
    rank_rows<false>(x, plan, q.query, s, pool.size, scores, ids);
}
