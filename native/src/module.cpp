// The Python face of the kernels: types, shapes and the GIL; no arithmetic.
//
//   soardb/kernels/native.py -> [module.cpp] -> dispatch.cpp
//
// Shapes are what soardb/kernels/reference.py says; the Python side has checked values.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "soardb/kernels.hpp"

namespace nb = nanobind;
using namespace soardb;

template <typename T, size_t N>
using In = nb::ndarray<const T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
template <typename T, size_t N>
using Out = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

// Search reads them in place, so the arrays are kept alive here.
struct Searcher {
  Ivf index;
  std::vector<nb::object> owners;

  template <typename T, size_t N>
  const T* own(nb::object fields, const char* name, int64_t* shape0 = nullptr) {
    nb::object array = fields.attr(name);
    auto view = nb::cast<In<T, N>>(array);
    if (shape0) *shape0 = static_cast<int64_t>(view.shape(0));
    owners.push_back(array);
    return view.data();
  }

  explicit Searcher(nb::object f) {
    const auto metric = nb::cast<std::string>(f.attr("metric"));
    index.metric = metric == "l2" ? kL2 : metric == "cosine" ? kCosine : kDot;
    const auto vectors = nb::cast<In<float, 2>>(f.attr("vectors"));
    const auto codebook = nb::cast<In<float, 3>>(f.attr("codebook"));
    const auto store = nb::cast<In<uint8_t, 2>>(f.attr("store"));
    index.d = static_cast<int64_t>(vectors.shape(1));
    index.m = static_cast<int64_t>(codebook.shape(0));
    index.width = static_cast<int64_t>(codebook.shape(1));
    index.stride = static_cast<int64_t>(store.shape(1));
    index.is_spilled = nb::cast<bool>(f.attr("is_spilled"));
    index.vectors = own<float, 2>(f, "vectors");
    index.ids = own<int64_t, 1>(f, "ids");
    index.mean = own<float, 1>(f, "mean");
    index.centroid_bias = own<float, 1>(f, "centroid_bias", &index.nslot);
    index.centroid_codes = own<uint8_t, 4>(f, "centroid_codes");
    index.centroid_scale = own<float, 1>(f, "centroid_scale");
    index.centroid_offset = own<float, 1>(f, "centroid_offset");
    index.slot_list = own<int32_t, 1>(f, "slot_list");
    index.cell_codes = own<uint8_t, 4>(f, "cell_codes");
    index.cell_bias = own<float, 1>(f, "cell_bias");
    int64_t starts = 0;
    index.cell_start = own<int32_t, 1>(f, "cell_start", &starts);
    index.ncell = starts ? starts - 1 : 0;
    index.list_start = own<int64_t, 1>(f, "list_start", &index.nlist);
    index.list_count = own<int32_t, 1>(f, "list_count");
    index.codes = own<uint8_t, 3>(f, "codes");
    index.code_rows = own<uint32_t, 1>(f, "code_rows");
    index.codebook = own<float, 3>(f, "codebook");
    index.block_dims = own<int32_t, 1>(f, "block_dims");
    index.store = own<uint8_t, 2>(f, "store");
    index.store_scale = own<float, 1>(f, "store_scale");
    index.store_bias = own<float, 1>(f, "store_bias");
  }

  int64_t search(In<float, 2> queries, int64_t k, int64_t nprobe, int64_t cellprobe,
                 int64_t collect, int64_t rerank, int64_t refine, int threads,
                 Out<float, 2> scores, Out<int64_t, 2> ids) const {
    const Plan plan{k, nprobe, cellprobe, collect, rerank, refine};
    const auto nq = static_cast<int64_t>(queries.shape(0));
    nb::gil_scoped_release release;
    return ivf_search(kernels(), index, plan, queries.data(), nq, threads, scores.data(),
                      ids.data());
  }
};


NB_MODULE(_native, m) {
  m.doc() = "Native kernels of soardb; see soardb/kernels/reference.py for what each computes.";

  m.def("level", [] { return std::string(kernels().name); });
  m.def("has_level", [](const std::string& name) { return has_level(name.c_str()); });
  m.def("use_level", [](const std::string& name) { return use_level(name.c_str()); });
  m.def("cpu_features", [] { return std::string(cpu_features()); });

  m.def("lut16_sums",
        [](In<uint8_t, 3> packed, int64_t n, In<uint8_t, 2> lut, Out<int32_t, 1> out) {
          nb::gil_scoped_release release;
          kernels().lut16_sums(packed.data(), n, static_cast<int64_t>(lut.shape(0)), lut.data(),
                               out.data());
        });
  m.def("lut16_topk", [](In<uint8_t, 3> packed, int64_t n, In<uint8_t, 2> lut, int32_t bias,
                         int64_t keep, Out<int32_t, 1> keys, Out<uint32_t, 1> positions) {
    nb::gil_scoped_release release;
    return kernels().lut16_topk(packed.data(), n, static_cast<int64_t>(lut.shape(0)), lut.data(),
                                bias, keep, static_cast<int64_t>(keys.shape(0)), keys.data(),
                                positions.data());
  });
  m.def("pool_capacity", [](int64_t keep) { return pool_capacity(keep); });
  m.def("dot_u8", [](In<uint8_t, 2> rows, In<int8_t, 1> query, Out<int32_t, 1> out) {
    nb::gil_scoped_release release;
    kernels().dot_u8(rows.data(), static_cast<int64_t>(rows.shape(0)),
                     static_cast<int64_t>(rows.shape(1)), nullptr, query.data(),
                     static_cast<int64_t>(query.shape(0)), out.data());
  });
  m.def("rerank_u8", [](In<uint8_t, 2> store, In<uint32_t, 1> rows, In<int8_t, 1> query,
                        Out<int32_t, 1> out) {
    nb::gil_scoped_release release;
    kernels().dot_u8(store.data(), static_cast<int64_t>(rows.shape(0)),
                     static_cast<int64_t>(store.shape(1)), rows.data(), query.data(),
                     static_cast<int64_t>(query.shape(0)), out.data());
  });
  m.def("score_blocks_u8", [](In<uint8_t, 4> blocks, In<int8_t, 1> query, Out<int32_t, 1> out) {
    nb::gil_scoped_release release;
    kernels().score_blocks_u8(blocks.data(), static_cast<int64_t>(blocks.shape(0)),
                              static_cast<int64_t>(blocks.shape(1)), query.data(), out.data());
  });
  m.def("score_f32", [](In<float, 2> vectors, In<float, 1> query, int metric,
                        Out<float, 1> out) {
    nb::gil_scoped_release release;
    kernels().score_f32(vectors.data(), static_cast<int64_t>(vectors.shape(0)),
                        static_cast<int64_t>(vectors.shape(1)), nullptr, query.data(), metric,
                        out.data());
  });
  m.def("rerank_f32", [](In<float, 2> vectors, In<uint32_t, 1> rows, In<float, 1> query,
                         int metric, Out<float, 1> out) {
    nb::gil_scoped_release release;
    kernels().score_f32(vectors.data(), static_cast<int64_t>(rows.shape(0)),
                        static_cast<int64_t>(vectors.shape(1)), rows.data(), query.data(), metric,
                        out.data());
  });
  m.def("exact_topk", [](In<float, 2> vectors, In<float, 2> queries, int64_t k, int metric,
                         int threads, Out<float, 2> scores, Out<int64_t, 2> rows) {
    nb::gil_scoped_release release;
    exact_topk(kernels(), vectors.data(), static_cast<int64_t>(vectors.shape(0)),
               static_cast<int64_t>(vectors.shape(1)), queries.data(),
               static_cast<int64_t>(queries.shape(0)), metric, k, threads, scores.data(),
               rows.data());
  });
  m.def("assign", [](In<float, 2> vectors, In<float, 2> centroids, int threads,
                     Out<int32_t, 1> out, Out<float, 1> scores) {
    nb::gil_scoped_release release;
    assign(kernels(), vectors.data(), static_cast<int64_t>(vectors.shape(0)),
           static_cast<int64_t>(vectors.shape(1)), centroids.data(),
           static_cast<int64_t>(centroids.shape(0)), threads, out.data(), scores.data());
  });
  m.def("spill_assign", [](In<float, 2> vectors, In<float, 2> centroids, In<int32_t, 1> primary,
                           float soar_lambda, bool include_primary, int threads,
                           Out<int32_t, 1> out) {
    nb::gil_scoped_release release;
    spill_assign(kernels(), vectors.data(), static_cast<int64_t>(vectors.shape(0)),
                 static_cast<int64_t>(vectors.shape(1)), centroids.data(),
                 static_cast<int64_t>(centroids.shape(0)), primary.data(), soar_lambda,
                 include_primary, threads, out.data());
  });
  m.def("encode", [](In<float, 2> residuals, In<float, 2> directions, In<float, 1> eta,
                     In<float, 3> codebook, In<int32_t, 1> block_dims, int threads,
                     Out<uint8_t, 2> out) {
    nb::gil_scoped_release release;
    encode(kernels(), residuals.data(), directions.data(), eta.data(),
           static_cast<int64_t>(residuals.shape(0)), static_cast<int64_t>(residuals.shape(1)),
           codebook.data(), static_cast<int64_t>(codebook.shape(0)),
           static_cast<int64_t>(codebook.shape(1)), block_dims.data(), threads, out.data());
  });

  nb::class_<Searcher>(m, "Searcher")
      .def(nb::init<nb::object>())
      .def("search", &Searcher::search);
}
