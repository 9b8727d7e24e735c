// SPDX-License-Identifier: Apache-2.0
// lowbit_numpy._kernels: the recipes on NumPy arrays, without TensorFlow. Only lowbit_numpy calls
// this, and it has checked everything: arrays are C-contiguous, aligned, and of the type that
// `dtype` names.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <new>

#include "core/recipes.h"
#include "cpu/float_environment.h"
#include "cpu/launch.h"
#include "numpy/thread_host.h"

namespace lowbit {
namespace {

using pybind11::array;

// In the order of lowbit_numpy's _DTYPES. NumPy has no number for bfloat16, which ml_dtypes makes.
enum Dtype { kHalf, kBfloat16, kFloat, kDouble };

template <typename T>
const T* In(const array& x) {
  return static_cast<const T*>(x.data());
}

template <typename T>
T* Out(array& y) {
  return static_cast<T*>(y.mutable_data());
}

template <class Recipe>
bool Run(const Recipe& recipe, int64_t threads) noexcept {
  ThreadHost memory_and_threads(threads);
  return LaunchCpu(recipe, memory_and_threads.host());
}

// Where the program ends meanwhile, Python up to 3.13 ends this thread when it asks for the GIL, by
// unwinding its stack: not within a destructor, as pybind11's gil_scoped_release would, since
// nothing may leave one, and with nothing in its way.
template <class Recipe>
void Launch(const Recipe& recipe, int64_t threads) {
  PyThreadState* const thread = PyEval_SaveThread();
  const bool has_run = Run(recipe, threads);
  PyEval_RestoreThread(thread);
  if (!has_run) throw std::bad_alloc();
}

// Launches make(T()), a recipe on arrays of T.
template <class Make>
void Launch(int dtype, int64_t threads, const Make& make) {
  const FloatEnvironment ieee;
  switch (dtype) {
    case kHalf:
      return Launch(make(Half()), threads);
    case kBfloat16:
      return Launch(make(Bfloat16()), threads);
    case kFloat:
      return Launch(make(float()), threads);
    case kDouble:
      return Launch(make(double()), threads);
  }
  throw pybind11::value_error("unknown dtype");
}

void RunLinear(int dtype, int64_t threads, const array& x, array& y, int bit, double max_value) {
  Launch(dtype, threads, [&](auto type) {
    using T = decltype(type);
    const auto max = static_cast<Compute<T>>(max_value);
    return LinearMidTreadHalf<T>{In<T>(x), Out<T>(y), Whole(x.size()), bit, max};
  });
}

void RunLinearGrad(int dtype, int64_t threads, const array& dy, const array& x, array& dx,
                   double max_value) {
  Launch(dtype, threads, [&](auto type) {
    using T = decltype(type);
    const auto max = static_cast<Compute<T>>(max_value);
    return LinearMidTreadHalfGrad<T>{In<T>(dy), In<T>(x), Out<T>(dx), Whole(x.size()), max};
  });
}

void RunBinary(int dtype, int64_t threads, const array& x, array& y, int64_t outer,
               int64_t channels, int64_t inner) {
  Launch(dtype, threads, [&](auto type) {
    using T = decltype(type);
    return BinaryMeanScaling<T>{In<T>(x), Out<T>(y), {outer, channels, inner}};
  });
}

void RunTtq(int dtype, int64_t threads, const array& w, const array& positive,
            const array& negative, array& y, double threshold) {
  Launch(dtype, threads, [&](auto type) {
    using T = decltype(type);
    return Ttq<T>{In<T>(w),  In<T>(positive), In<T>(negative),
                  Out<T>(y), Whole(w.size()), threshold};
  });
}

void RunTtqGrad(int dtype, int64_t threads, const array& dy, const array& w, const array& positive,
                const array& negative, array& dw, array& dpositive, array& dnegative,
                double threshold, bool paper) {
  const auto kind = paper ? NegativeGradient::kPaper : NegativeGradient::kExact;
  Launch(dtype, threads, [&](auto type) {
    using T = decltype(type);
    return TtqGrad<T>{
        In<T>(dy),         In<T>(w),          In<T>(positive), In<T>(negative), Out<T>(dw),
        Out<T>(dpositive), Out<T>(dnegative), Whole(w.size()), threshold,       kind};
  });
}

void RunTwn(int dtype, int64_t threads, const array& w, array& y, int64_t outer, int64_t channels,
            int64_t inner, double threshold) {
  Launch(dtype, threads, [&](auto type) {
    using T = decltype(type);
    return Twn<T>{In<T>(w), Out<T>(y), {outer, channels, inner}, threshold};
  });
}

// function(arguments), with subnormal numbers counting, whatever this thread does with them: Python
// runs on TensorFlow's threads too.
pybind11::object InIeee(const pybind11::function& function, const pybind11::args& arguments) {
  const FloatEnvironment ieee;
  return function(*arguments);
}

}  // namespace
}  // namespace lowbit

PYBIND11_MODULE(_kernels, m) {
  m.def("isa", &lowbit::ActiveIsa);
  m.def("in_ieee", &lowbit::InIeee);
  m.def("linear", &lowbit::RunLinear);
  m.def("linear_grad", &lowbit::RunLinearGrad);
  m.def("binary", &lowbit::RunBinary);
  m.def("ttq", &lowbit::RunTtq);
  m.def("ttq_grad", &lowbit::RunTtqGrad);
  m.def("twn", &lowbit::RunTwn);
}
