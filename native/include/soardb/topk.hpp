// Top-k over scores that are there, and over 4- and 8-bit rows.
//
//   module.cpp -> [topk.hpp] -> kernels.hpp
//
// soardb/kernels/topk_reference.py says what each function computes; shapes and names are the same.
#pragma once

#include "soardb/kernels.hpp"

namespace soardb {

// n rows in blocks of 16, `units` lines of 64 bytes a block: 4 dimensions of 8 bits, or 8 of 4.
struct Quantized {
  const uint8_t* codes;
  const float* scale;  // one a row, padded to a multiple of 16
  int64_t bits, units, n;
};

void select_topk(const Kernels& k, const float* scores, int64_t nq, int64_t n, int64_t want,
                 int threads, float* values, int64_t* rows);
void bucket_topk(const Kernels& k, const float* scores, int64_t nq, int64_t n, int64_t count,
                 int64_t keep, int64_t want, int threads, float* values, int64_t* rows,
                 uint8_t* certain);
void bucket_survivors(const Kernels& k, const float* scores, int64_t nq, int64_t n, int64_t count,
                      int64_t keep, int threads, float* values, int32_t* rows);
void quantized_topk(const Kernels& k, const Quantized& x, const int8_t* queries, int64_t nq,
                    int64_t want, int threads, float* values, int64_t* rows);
void quantized_all(const Kernels& k, const Quantized& x, const int8_t* queries, int64_t nq,
                   int threads, float* out);
void rescore_topk(const Kernels& k, const float* vectors, int64_t d, const float* queries,
                  int64_t nq, const int64_t* chosen, int64_t nchosen, int64_t want, int threads,
                  float* values, int64_t* rows);

}  // namespace soardb
