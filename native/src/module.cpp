// The Python face of the kernels: types, shapes and the GIL; no arithmetic.
//
//   soardb/kernels/native.py -> [module.cpp] -> dispatch.cpp, assigner.cpp, lists.cpp
//
// Shapes are what soardb/kernels/reference.py says; the Python side has checked values.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "soardb/assigner.hpp"
#include "soardb/batch.hpp"
#include "soardb/bound_call.hpp"
#include "soardb/kernels.hpp"
#include "soardb/topk.hpp"

namespace nb = nanobind;
using namespace soardb;

template <typename T, size_t N>
using In = nb::ndarray<const T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
template <typename T, size_t N>
using Out = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

// Arrays are taken as they are or refused: a converted copy of an input would cost what nobody
// sees, and a result written into a copy of the output would be lost.
template <typename T>
constexpr bool is_array = false;
template <typename... Ts>
constexpr bool is_array<nb::ndarray<Ts...>> = true;

template <typename T>
constexpr bool is_optional = false;
template <typename T>
constexpr bool is_optional<std::optional<T>> = true;

template <typename A>
auto argument() {
  if constexpr (is_array<std::remove_cvref_t<A>>)
    return nb::arg().noconvert();
  else if constexpr (is_optional<std::remove_cvref_t<A>>)
    return nb::arg().noconvert().none();
  else
    return nb::arg();
}
template <typename R, typename C, typename... Args, typename Function, typename Owner>
void def(Owner& owner, const char* name, Function function, R (C::*)(Args...) const) {
  owner.def(name, function, argument<Args>()...);
}
template <typename Function>
void def(nb::module_& m, const char* name, Function function) {
  def(m, name, function, &Function::operator());
}

// Vectors in any form that they are kept in: float32, uint16 (bfloat16) or bytes.
using AnyRows = nb::ndarray<nb::ro, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

Kept kept(const AnyRows& base, const AnyRows& delta, int64_t d, const In<float, 1>& scale,
          const In<float, 1>& offset) {
  Kept out;
  const auto step = static_cast<int64_t>(base.shape(1));
  if (base.dtype() == nb::dtype<float>())
    out.precision = kFloat32;
  else if (base.dtype() == nb::dtype<uint16_t>())
    out.precision = kBfloat16;
  else if (base.dtype() == nb::dtype<uint8_t>())
    out.precision = kInt8;
  else
    throw nb::type_error("expected vectors of float32, of uint16 that are bfloat16, or of bytes");
  const bool has_delta = delta.shape(0) > 0;
  if (out.precision == kInt8 ? step < d : step != d)
    throw nb::value_error("expected vectors of the index's dimension");
  if (has_delta && (delta.dtype() != base.dtype() || static_cast<int64_t>(delta.shape(1)) != step))
    throw nb::value_error("expected a delta of the base's form and dimension");
  if (out.precision == kInt8 && (static_cast<int64_t>(scale.shape(0)) != d ||
                                 static_cast<int64_t>(offset.shape(0)) != d))
    throw nb::value_error("expected a scale and an offset for each dimension of bytes");
  out.base = base.data();
  out.delta = has_delta ? delta.data() : nullptr;
  out.n = static_cast<int64_t>(base.shape(0));
  out.d = d;
  out.step = step;
  out.scale = scale.data();
  out.offset = offset.data();
  return out;
}

// Search reads them in place, so the arrays are kept alive here.
struct Searcher {
  Ivf index;
  std::vector<nb::object> owners;

  template <typename T, size_t N>
  In<T, N> own(nb::object fields, const char* name) {
    return own_as<In<T, N>>(fields, name);
  }
  template <typename View>
  View own_as(nb::object fields, const char* name) {
    nb::object array = fields.attr(name);
    View view;
    if (!nb::try_cast(array, view, false))
      throw nb::type_error((std::string("expected IvfArrays.") + name +
                            " to be contiguous and of the dtype and rank that layout.py says")
                               .c_str());
    owners.push_back(array);
    return view;
  }

  explicit Searcher(nb::object f) {
    const auto metric = nb::cast<std::string>(f.attr("metric"));
    index.metric = metric == "l2" ? kL2 : metric == "cosine" ? kCosine : kDot;
    index.is_spilled = nb::cast<bool>(f.attr("is_spilled"));
    index.spread = nb::cast<float>(f.attr("spread"));
    const auto vectors = own_as<AnyRows>(f, "vectors");
    const auto mean = own<float, 1>(f, "mean");
    const auto scale = own<float, 1>(f, "store_scale");
    const auto centroid_bias = own<float, 1>(f, "centroid_bias");
    const auto cell_start = own<int32_t, 1>(f, "cell_start");
    const auto list_start = own<int64_t, 1>(f, "list_start");
    const auto codebook = own<float, 3>(f, "codebook");
    const auto store = own<uint8_t, 2>(f, "store");
    const auto code_rows = own<uint32_t, 1>(f, "code_rows");
    index.n = static_cast<int64_t>(vectors.shape(0));
    index.d = static_cast<int64_t>(mean.shape(0));
    index.ncode = static_cast<int64_t>(code_rows.shape(0));
    index.nslot = static_cast<int64_t>(centroid_bias.shape(0));
    index.ncell = cell_start.shape(0) ? static_cast<int64_t>(cell_start.shape(0)) - 1 : 0;
    index.nlist = static_cast<int64_t>(list_start.shape(0));
    index.m = static_cast<int64_t>(codebook.shape(0));
    index.width = static_cast<int64_t>(codebook.shape(1));
    index.stride = static_cast<int64_t>(store.shape(1));
    index.vectors = kept(vectors, own_as<AnyRows>(f, "delta_vectors"), index.d, scale,
                         own<float, 1>(f, "vector_offset"));
    index.ids = own<int64_t, 1>(f, "ids").data();
    index.mean = mean.data();
    index.centroid_bias = centroid_bias.data();
    index.centroid_codes = own<uint8_t, 4>(f, "centroid_codes").data();
    index.centroid_scale = own<float, 1>(f, "centroid_scale").data();
    index.centroid_offset = own<float, 1>(f, "centroid_offset").data();
    index.slot_list = own<int32_t, 1>(f, "slot_list").data();
    index.cell_codes = own<uint8_t, 4>(f, "cell_codes").data();
    index.cell_bias = own<float, 1>(f, "cell_bias").data();
    index.cell_start = cell_start.data();
    index.list_start = list_start.data();
    index.list_count = own<int32_t, 1>(f, "list_count").data();
    index.codes = own<uint8_t, 3>(f, "codes").data();
    index.code_rows = code_rows.data();
    index.codebook = codebook.data();
    index.block_dims = own<int32_t, 1>(f, "block_dims").data();
    index.store = store.data();
    index.store_scale = scale.data();
    index.store_bias = own<float, 1>(f, "store_bias").data();
    const auto rotation_scale = own<float, 1>(f, "rotation_scale");
    index.nturned = static_cast<int64_t>(rotation_scale.shape(0));
    index.rotation_codes = own<uint8_t, 4>(f, "rotation_codes").data();
    index.rotation_scale = rotation_scale.data();
    own_delta(f);
  }

  // Counts and contents of the delta change in place from one search to the next.
  void own_delta(nb::object f) {
    const auto start = own<int64_t, 1>(f, "delta_start");
    if (!start.shape(0)) return;
    const auto store = own<uint8_t, 2>(f, "delta_store");
    if (static_cast<int64_t>(store.shape(1)) != index.stride ||
        static_cast<int64_t>(start.shape(0)) != index.nlist)
      throw nb::value_error("expected a delta of the base's stride and lists");
    index.delta_ids = own<int64_t, 1>(f, "delta_ids").data();
    index.delta_store = store.data();
    index.delta_store_bias = own<float, 1>(f, "delta_store_bias").data();
    index.delta_start = start.data();
    index.delta_count = own<int32_t, 1>(f, "delta_count").data();
    index.delta_codes = own<uint8_t, 3>(f, "delta_codes").data();
    index.delta_code_rows = own<uint32_t, 1>(f, "delta_code_rows").data();
  }

  int64_t search(In<float, 2> queries, int64_t k, int64_t nprobe, int64_t cellprobe,
                 int64_t collect, int64_t rerank, int64_t refine, float stop, int threads,
                 Out<float, 2> scores, Out<int64_t, 2> ids,
                 std::optional<In<uint8_t, 1>> allowed,
                 std::optional<Out<int64_t, 1>> scanned) const {
    const Plan plan{k, nprobe, cellprobe, collect, rerank, refine, stop};
    const auto nq = static_cast<int64_t>(queries.shape(0));
    Filter filter;
    if (allowed) filter = {allowed->data(), static_cast<int64_t>(allowed->shape(0))};
    nb::gil_scoped_release release;
    SOARDB_STAGE(search);
    return ivf_search(kernels(), index, plan, queries.data(), nq, threads, scores.data(),
                      ids.data(), allowed ? &filter : nullptr,
                      scanned ? scanned->data() : nullptr);
  }
};

// Spilling reads the centroids themselves too, so they are kept alive here.
struct ListAssigner {
  In<float, 2> centroids;
  Assigner packed;

  explicit ListAssigner(In<float, 2> given)
      : centroids(given),
        packed(given.data(), static_cast<int64_t>(given.shape(0)),
               static_cast<int64_t>(given.shape(1))) {}

  void assign(In<float, 2> vectors, int threads, Out<int32_t, 1> out, Out<float, 1> scores) const {
    nb::gil_scoped_release release;
    packed.assign(kernels(), vectors.data(), static_cast<int64_t>(vectors.shape(0)), threads,
                  out.data(), scores.data());
  }
  void spill(In<float, 2> vectors, In<int32_t, 1> primary, float soar_lambda, bool include_primary,
             int threads, Out<int32_t, 1> out) const {
    nb::gil_scoped_release release;
    packed.spill(kernels(), vectors.data(), static_cast<int64_t>(vectors.shape(0)), primary.data(),
                 soar_lambda, include_primary, threads, out.data());
  }
};

NB_MODULE(_native, m) {
  if (!import_numpy()) throw nb::python_error();
  nb::set_leak_warnings(false);  // what lives until the interpreter ends is no leak
  m.doc() = "Native kernels of soardb; see soardb/kernels/reference.py for what each computes.";

  m.def("level", [] { return std::string(kernels().name); });
  m.def("has_level", [](const std::string& name) { return has_level(name.c_str()); });
  m.def("use_level", [](const std::string& name) { return use_level(name.c_str()); });
  m.def("cpu_features", [] { return std::string(cpu_features()); });

  def(m, "lut16_sums",
      [](In<uint8_t, 3> packed, int64_t n, In<uint8_t, 2> lut, Out<int32_t, 1> out) {
        nb::gil_scoped_release release;
        kernels().lut16_sums(packed.data(), n, static_cast<int64_t>(lut.shape(0)), lut.data(),
                             out.data());
      });
  def(m, "lut16_topk", [](In<uint8_t, 3> packed, int64_t n, In<uint8_t, 2> lut, int32_t bias,
                          int64_t keep, Out<int32_t, 1> keys, Out<uint32_t, 1> positions) {
    nb::gil_scoped_release release;
    return kernels().lut16_topk(packed.data(), n, static_cast<int64_t>(lut.shape(0)), lut.data(),
                                bias, keep, static_cast<int64_t>(keys.shape(0)), keys.data(),
                                positions.data());
  });
  m.def("pool_capacity", [](int64_t keep) { return pool_capacity(keep); });
  def(m, "dot_u8", [](In<uint8_t, 2> rows, In<int8_t, 1> query, Out<int32_t, 1> out) {
    nb::gil_scoped_release release;
    kernels().dot_u8(rows.data(), static_cast<int64_t>(rows.shape(0)),
                     static_cast<int64_t>(rows.shape(1)), nullptr, query.data(),
                     static_cast<int64_t>(query.shape(0)), out.data());
  });
  def(m, "rerank_u8", [](In<uint8_t, 2> store, In<uint32_t, 1> rows, In<int8_t, 1> query,
                         Out<int32_t, 1> out) {
    nb::gil_scoped_release release;
    kernels().dot_u8(store.data(), static_cast<int64_t>(rows.shape(0)),
                     static_cast<int64_t>(store.shape(1)), rows.data(), query.data(),
                     static_cast<int64_t>(query.shape(0)), out.data());
  });
  def(m, "score_blocks_u8", [](In<uint8_t, 4> blocks, In<int8_t, 1> query, Out<int32_t, 1> out) {
    nb::gil_scoped_release release;
    kernels().score_blocks_u8(blocks.data(), static_cast<int64_t>(blocks.shape(0)),
                              static_cast<int64_t>(blocks.shape(1)), query.data(), out.data());
  });
  def(m, "score_f32", [](In<float, 2> vectors, In<float, 1> query, int metric,
                         Out<float, 1> out) {
    nb::gil_scoped_release release;
    kernels().score_f32(vectors.data(), static_cast<int64_t>(vectors.shape(0)),
                        static_cast<int64_t>(vectors.shape(1)), nullptr, query.data(), metric,
                        out.data());
  });
  def(m, "rerank_f32", [](In<float, 2> vectors, In<uint32_t, 1> rows, In<float, 1> query,
                          int metric, Out<float, 1> out) {
    nb::gil_scoped_release release;
    kernels().score_f32(vectors.data(), static_cast<int64_t>(rows.shape(0)),
                        static_cast<int64_t>(vectors.shape(1)), rows.data(), query.data(), metric,
                        out.data());
  });
  def(m, "exact_topk", [](In<float, 2> vectors, In<float, 2> queries, int64_t k, int metric,
                          int threads, Out<float, 2> scores, Out<int64_t, 2> rows) {
    nb::gil_scoped_release release;
    exact_topk(kernels(), vectors.data(), static_cast<int64_t>(vectors.shape(0)),
               static_cast<int64_t>(vectors.shape(1)), queries.data(),
               static_cast<int64_t>(queries.shape(0)), metric, k, threads, scores.data(),
               rows.data());
  });
  def(m, "topk_u8",
      [](In<uint8_t, 2> store, std::optional<In<float, 1>> bias, int64_t first,
         In<int8_t, 2> codes, In<float, 1> steps, int64_t keep,
         std::optional<In<uint8_t, 1>> allowed, int threads, Out<int32_t, 2> keys,
         Out<uint32_t, 2> rows, Out<int64_t, 1> counts) {
        const ByteRows held{store.data(), static_cast<int64_t>(store.shape(0)),
                            static_cast<int64_t>(store.shape(1)), bias ? bias->data() : nullptr,
                            first};
        Filter filter;
        if (allowed) filter = {allowed->data(), static_cast<int64_t>(allowed->shape(0))};
        nb::gil_scoped_release release;
        topk_u8(kernels(), held, codes.data(), static_cast<int64_t>(codes.shape(0)),
                static_cast<int64_t>(codes.shape(1)), steps.data(), keep,
                allowed ? &filter : nullptr, threads, keys.data(), rows.data(), counts.data());
      });
  def(m, "rescore",
      [](AnyRows vectors, AnyRows delta, In<float, 1> scale, In<float, 1> offset,
         In<float, 2> queries, int metric, In<uint32_t, 2> rows, In<double, 2> bounds,
         In<int64_t, 1> counts, In<double, 1> rest, int64_t k, int threads, Out<float, 2> scores,
         Out<int64_t, 2> found, Out<uint8_t, 1> proven) {
        const Kept held =
            kept(vectors, delta, static_cast<int64_t>(queries.shape(1)), scale, offset);
        nb::gil_scoped_release release;
        rescore(kernels(), held, queries.data(), static_cast<int64_t>(queries.shape(0)), metric,
                rows.data(), bounds.data(), static_cast<int64_t>(rows.shape(1)), counts.data(),
                rest.data(), k, threads, scores.data(), found.data(), proven.data());
      });
  def(m, "store_error",
      [](In<float, 2> vectors, In<float, 1> mean, In<uint8_t, 2> store, In<float, 1> scale,
         In<float, 1> offset, int threads, Out<double, 1> out) {
        nb::gil_scoped_release release;
        store_error(vectors.data(), static_cast<int64_t>(vectors.shape(0)),
                    static_cast<int64_t>(vectors.shape(1)), mean.data(), store.data(),
                    static_cast<int64_t>(store.shape(1)), scale.data(), offset.data(), threads,
                    out.data());
      });
  def(m, "encode", [](In<float, 2> residuals, In<float, 2> directions, In<float, 1> eta,
                      In<float, 3> codebook, In<int32_t, 1> block_dims, int threads,
                      Out<uint8_t, 2> out) {
    nb::gil_scoped_release release;
    encode(kernels(), residuals.data(), directions.data(), eta.data(),
           static_cast<int64_t>(residuals.shape(0)), static_cast<int64_t>(residuals.shape(1)),
           codebook.data(), static_cast<int64_t>(codebook.shape(0)),
           static_cast<int64_t>(codebook.shape(1)), block_dims.data(), threads, out.data());
  });

  def(m, "list_sums", [](In<float, 2> vectors, In<int32_t, 1> lists, int threads,
                         Out<float, 2> sums, Out<int64_t, 1> counts) {
    nb::gil_scoped_release release;
    list_sums(vectors.data(), static_cast<int64_t>(vectors.shape(0)),
              static_cast<int64_t>(vectors.shape(1)), lists.data(),
              static_cast<int64_t>(sums.shape(0)), threads, sums.data(), counts.data());
  });
  def(m, "avq_update", [](In<float, 2> vectors, In<int32_t, 1> lists, double eta, int threads,
                          Out<double, 2> moved) {
    nb::gil_scoped_release release;
    avq_update(vectors.data(), static_cast<int64_t>(vectors.shape(0)),
               static_cast<int64_t>(vectors.shape(1)), lists.data(),
               static_cast<int64_t>(moved.shape(0)), eta, threads, moved.data());
  });
  def(m, "select_topk", [](In<float, 2> scores, int64_t k, int threads, Out<float, 2> values,
                           Out<int64_t, 2> rows) {
    nb::gil_scoped_release release;
    select_topk(kernels(), scores.data(), static_cast<int64_t>(scores.shape(0)),
                static_cast<int64_t>(scores.shape(1)), k, threads, values.data(), rows.data());
  });
  def(m, "bucket_topk", [](In<float, 2> scores, int64_t buckets, int64_t keep, int64_t k,
                           int threads, Out<float, 2> values, Out<int64_t, 2> rows,
                           Out<uint8_t, 1> certain) {
    nb::gil_scoped_release release;
    bucket_topk(kernels(), scores.data(), static_cast<int64_t>(scores.shape(0)),
                static_cast<int64_t>(scores.shape(1)), buckets, keep, k, threads, values.data(),
                rows.data(), certain.data());
  });
  def(m, "bucket_survivors", [](In<float, 2> scores, int64_t buckets, int64_t keep, int threads,
                                Out<float, 3> values, Out<int32_t, 3> rows) {
    nb::gil_scoped_release release;
    bucket_survivors(kernels(), scores.data(), static_cast<int64_t>(scores.shape(0)),
                     static_cast<int64_t>(scores.shape(1)), buckets, keep, threads, values.data(),
                     rows.data());
  });
  def(m, "quantized_topk", [](In<uint8_t, 3> codes, int64_t bits, int64_t n, In<float, 1> scale,
                              In<int8_t, 2> queries, int64_t k, int threads,
                              Out<float, 2> values, Out<int64_t, 2> rows) {
    nb::gil_scoped_release release;
    const Quantized x{codes.data(), scale.data(), bits, static_cast<int64_t>(codes.shape(1)), n};
    quantized_topk(kernels(), x, queries.data(), static_cast<int64_t>(queries.shape(0)), k,
                   threads, values.data(), rows.data());
  });
  def(m, "quantized_scores", [](In<uint8_t, 3> codes, int64_t bits, int64_t n, In<float, 1> scale,
                                In<int8_t, 2> queries, int threads, Out<float, 2> out) {
    nb::gil_scoped_release release;
    const Quantized x{codes.data(), scale.data(), bits, static_cast<int64_t>(codes.shape(1)), n};
    quantized_all(kernels(), x, queries.data(), static_cast<int64_t>(queries.shape(0)), threads,
                  out.data());
  });
  def(m, "rescore_topk", [](In<float, 2> vectors, In<float, 2> queries, In<int64_t, 2> chosen,
                            int64_t k, int threads, Out<float, 2> values, Out<int64_t, 2> rows) {
    nb::gil_scoped_release release;
    rescore_topk(kernels(), vectors.data(), static_cast<int64_t>(vectors.shape(1)),
                 queries.data(), static_cast<int64_t>(queries.shape(0)), chosen.data(),
                 static_cast<int64_t>(chosen.shape(1)), k, threads, values.data(), rows.data());
  });

  def(m, "append_codes",
      [](Out<int64_t, 1> start, Out<int32_t, 1> count, Out<int64_t, 1> room, int64_t used,
         Out<uint8_t, 3> codes, Out<uint32_t, 1> rows, In<int32_t, 1> parts,
         In<uint32_t, 1> new_rows, In<uint8_t, 2> new_codes) {
        const Lists lists{start.data(), count.data(), room.data(),
                          codes.data(), rows.data(),  static_cast<int64_t>(codes.shape(0)),
                          static_cast<int64_t>(new_codes.shape(1))};
        nb::gil_scoped_release release;
        const int64_t appended =
            append_codes(lists, static_cast<int64_t>(parts.shape(0)), parts.data(),
                         new_rows.data(), new_codes.data(), &used);
        return std::pair(appended, used);
      });

  m.def("stage_times", [] {
    nb::list stages;
    if (!kHasStages) return stages;
    const StageClock clock = read_stages();
    const double tick = nanoseconds_per_tick();
    for (int i = 0; i < kStages; ++i)
      stages.append(nb::make_tuple(stage_name(i), stage_covers(i), clock.calls[i],
                                   static_cast<double>(clock.ticks[i]) * tick));
    return stages;
  });
  m.def("reset_stage_times", [] { reset_stages(); });

  nb::class_<ListAssigner> assigner(m, "Assigner");
  assigner.def(nb::init<In<float, 2>>(), nb::arg().noconvert());
  def(assigner, "assign", &ListAssigner::assign, &ListAssigner::assign);
  def(assigner, "spill", &ListAssigner::spill, &ListAssigner::spill);

  nb::class_<Searcher> searcher(m, "Searcher");
  searcher.def(nb::init<nb::object>());
  def(searcher, "search", &Searcher::search, &Searcher::search);
  searcher.def("bind", [](nb::handle self, int64_t k, int64_t nprobe, int64_t cellprobe,
                          int64_t collect, int64_t rerank, int64_t refine, float stop) {
    PyObject* bound = bind_call(self.ptr(), nb::cast<const Searcher&>(self).index,
                                {k, nprobe, cellprobe, collect, rerank, refine, stop});
    if (!bound) throw nb::python_error();
    return nb::steal(bound);
  });
}
