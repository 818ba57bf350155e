// Centroids packed once, so that a single vector is given its lists in microseconds.
//
//   module.cpp -> [assigner.hpp] -> kernels.hpp
//
// Apart from kernels.hpp, since no file with flags of its own may hold a std:: container.
#pragma once

#include <vector>

#include "soardb/kernels.hpp"

namespace soardb {

// Borrows the centroids (nlist, d); their bytes serve every instruction set.
class Assigner {
 public:
  Assigner(const float* centroids, int64_t nlist, int64_t d);

  // soardb/kernels/reference.py: assign and spill_assign.
  void assign(const Kernels& k, const float* vectors, int64_t n, int threads, int32_t* out,
              float* scores) const;
  void spill(const Kernels& k, const float* vectors, int64_t n, const int32_t* primary,
             float soar_lambda, bool include_primary, int threads, int32_t* out) const;

 private:
  Places places_;
  std::vector<float> mean_, raw_half_norms_, scale_, half_norms_, spread_;
  std::vector<uint8_t> codes_;
};

// Sums (nlist, d) and counts (nlist,) of n < 2^32 vectors by list: soardb/kernels/reference.py.
void list_sums(const float* vectors, int64_t n, int64_t d, const int32_t* lists, int64_t nlist,
               int threads, float* sums, int64_t* counts);
// Centroids moved (nlist, d), in place, by AVQ: soardb/kernels/reference.py.
void avq_update(const float* vectors, int64_t n, int64_t d, const int32_t* lists, int64_t nlist,
                double eta, int threads, double* moved);

}  // namespace soardb
