// SPDX-License-Identifier: Apache-2.0
// lowbit_numpy._kernels: the recipes on NumPy arrays, without TensorFlow. Only lowbit_numpy calls
// this, and it has checked everything: arrays are C-contiguous, aligned, and of the type that
// `dtype` names.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <new>
#include <string>
#include <vector>

#include "core/call.h"
#include "core/float_environment.h"
#include "cpu/dispatch.h"
#include "cpu/thread_runtime.h"

namespace lowbit {
namespace {

using pybind11::array;

template <class Recipe>
bool Run(const Recipe& recipe, int64_t threads) noexcept {
  ThreadRuntime memory_and_threads(threads);
  return LaunchCpu(recipe, memory_and_threads.runtime());
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

// Runs an op on arrays of the dtype; what it takes is in the op's order, as core/call.h has it.
// `layout` is the size of the tensors before, on and behind their channel axis.
void RunOp(const std::string& op, int dtype, int64_t threads, const std::vector<array>& inputs,
           std::vector<array> outputs, const std::array<int64_t, 3>& layout,
           const std::vector<double>& numbers, const std::vector<int>& choices) {
  std::vector<const void*> in;
  std::vector<void*> out;
  for (const array& input : inputs) in.push_back(input.data());
  for (array& output : outputs) out.push_back(output.mutable_data());
  const Call call{{in.data(), in.size()},
                  {out.data(), out.size()},
                  {numbers.data(), numbers.size()},
                  {choices.data(), choices.size()},
                  {layout[0], layout[1], layout[2]}};
  const FloatEnvironment ieee;
  const auto launch = [threads](const auto& recipe) { Launch(recipe, threads); };
  if (!WithRecipe(op.c_str(), dtype, call, launch)) {
    throw pybind11::value_error("there is no op " + op + " of such arguments, or no such dtype");
  }
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
  m.def("run", &lowbit::RunOp);
}
