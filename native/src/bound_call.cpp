// One query from Python to C++ and back: a plan bound to an index, called with the query alone.
//
//   soardb/kernels/native.py -> module.cpp -> [bound_call.cpp] -> dispatch.cpp
//
// Between two queries the caches hold lists, so what a call costs is the lines that it touches
// rather than the instructions that it runs. Hence a plain C function: no conversion of arguments,
// no views of arrays, and the results made here. It needs NumPy's own headers for that.
#include "soardb/bound_call.hpp"

#define NPY_NO_DEPRECATED_API NPY_1_22_API_VERSION
#include <numpy/arrayobject.h>

#include <memory>

namespace soardb {
namespace {

struct BoundCall {
  PyObject* owner;
  const Ivf* index;
  Plan plan;
};

constexpr const char* kCapsule = "soardb.bound_call";

// (scores, ids) of one query, or None: where the array is not one that can be read in place, and
// where the search would have more to say than its results.
PyObject* call(PyObject* capsule, PyObject* query) {
  const auto* bound = static_cast<const BoundCall*>(PyCapsule_GetPointer(capsule, kCapsule));
  if (!PyArray_CheckExact(query)) Py_RETURN_NONE;
  auto* array = reinterpret_cast<PyArrayObject*>(query);
  if (PyArray_TYPE(array) != NPY_FLOAT || PyArray_NDIM(array) != 2 || PyArray_DIM(array, 0) != 1 ||
      PyArray_DIM(array, 1) != bound->index->d || !PyArray_ISCARRAY_RO(array))
    Py_RETURN_NONE;
  npy_intp shape[2] = {1, bound->plan.k};
  PyObject* scores = PyArray_SimpleNew(2, shape, NPY_FLOAT);
  PyObject* ids = scores ? PyArray_SimpleNew(2, shape, NPY_INT64) : nullptr;
  PyObject* both = ids ? PyTuple_New(2) : nullptr;
  if (!both) {
    Py_XDECREF(scores);
    Py_XDECREF(ids);
    return nullptr;
  }
  PyTuple_SET_ITEM(both, 0, scores);
  PyTuple_SET_ITEM(both, 1, ids);
  const auto* values = static_cast<const float*>(PyArray_DATA(array));
  auto* best = static_cast<float*>(PyArray_DATA(reinterpret_cast<PyArrayObject*>(scores)));
  auto* found = static_cast<int64_t*>(PyArray_DATA(reinterpret_cast<PyArrayObject*>(ids)));
  int64_t status = 0;
  Py_INCREF(query);
  Py_BEGIN_ALLOW_THREADS
  SOARDB_STAGE(search);
  status = ivf_search(kernels(), *bound->index, bound->plan, values, 1, 1, best, found);
  Py_END_ALLOW_THREADS
  Py_DECREF(query);
  if (status == 0) return both;
  Py_DECREF(both);
  Py_RETURN_NONE;
}

PyMethodDef kMethod = {"search_one", call, METH_O, nullptr};

void release(PyObject* capsule) {
  auto* bound = static_cast<BoundCall*>(PyCapsule_GetPointer(capsule, kCapsule));
  Py_DECREF(bound->owner);
  delete bound;
}

}  // namespace

bool import_numpy() { return _import_array() >= 0; }

PyObject* bind_call(PyObject* owner, const Ivf& index, const Plan& plan) {
  auto bound = std::make_unique<BoundCall>(BoundCall{owner, &index, plan});
  PyObject* capsule = PyCapsule_New(bound.get(), kCapsule, release);
  if (!capsule) return nullptr;
  bound.release();
  Py_INCREF(owner);
  PyObject* function = PyCFunction_New(&kMethod, capsule);
  Py_DECREF(capsule);
  return function;
}

}  // namespace soardb
