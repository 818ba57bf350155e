// Centroids packed once, so that a single vector is given its lists in microseconds.
//
//   module.cpp -> [assigner.hpp] -> kernels.hpp
//
// Apart from kernels.hpp, since no file with flags of its own may hold a std:: container.
#pragma once

#include <vector>

#include "soardb/kernels.hpp"

namespace soardb {

// Borrows the centroids (nlist, d); the panels serve every instruction set.
class Assigner {
 public:
  Assigner(const float* centroids, int64_t nlist, int64_t d);

  // soardb/kernels/reference.py: assign and spill_assign; scores may be null.
  void assign(const Kernels& k, const float* vectors, int64_t n, int threads, int32_t* out,
              float* scores) const;
  void spill(const Kernels& k, const float* vectors, int64_t n, const int32_t* primary,
             float soar_lambda, bool include_primary, int threads, int32_t* out) const;

 private:
  const float* centroids_;
  int64_t nlist_, d_;
  std::vector<float> panels_, norms_, half_norms_;
};

}  // namespace soardb
