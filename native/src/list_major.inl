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
  const float* query;
  if (const int status = prepare_query(x, raw, s, &query)) return status;
  const int64_t lists = best_lists(x, plan, s);
  float span, floor;
  build_lut(x, coded_query(x, s), s, &span, &floor);
  const double step = keys_a_unit(x, s, lists, span, floor);
  for (int64_t i = 0; i < lists; ++i) {
    out.lists[i] = x.slot_list[s.order[i]];
    out.biases[i] = key_of(s.order_scores[i] + floor, step);
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

// Codes [from, to) of a list, of the base or of the delta, into the pool of one query.
static void scan_piece(const Ivf& x, const Plan& plan, const Filter* filter, ListQuery& q,
                       int32_t list, int32_t bias, int64_t capacity, bool is_delta, int64_t from,
                       int64_t to, Scratch& s) {
  Pool pool{q.keys, q.slots, plan.collect, capacity, q.size, q.threshold, q.open};
  Scan scan{x, filter, q.lut, s, pool, 0, 0};
  visit(scan, list, is_delta, from, to, bias);
  drain(scan);
  q.scanned += scan.scanned;
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
