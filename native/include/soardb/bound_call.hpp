// A search of one query with its plan bound, as a Python function; see bound_call.cpp.
//
//   module.cpp -> [bound_call.hpp] <- bound_call.cpp
#pragma once

#include <Python.h>

#include "soardb/kernels.hpp"

namespace soardb {

// NumPy's table of functions, once a process; false with a Python error set.
bool import_numpy();

// A function of one argument, a (1, d) float32 array in C order: (scores (1, k), ids (1, k)), or
// None where another array came or where ivf_search() would not return 0. Keeps `owner` alive,
// which must keep `index` and its arrays. Null with a Python error set.
PyObject* bind_call(PyObject* owner, const Ivf& index, const Plan& plan);

}  // namespace soardb
