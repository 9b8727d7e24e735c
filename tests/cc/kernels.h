// SPDX-License-Identifier: Apache-2.0
// A call of a kernel through a C interface, and the recipe it stands for. As in tests/kernels.py.
#ifndef LOWBIT_TESTS_KERNELS_H_
#define LOWBIT_TESTS_KERNELS_H_

#include <cstdio>
#include <cstdlib>

#include "core/recipes.h"

#define LOWBIT_TEST_EXPORT extern "C" __attribute__((visibility("default")))

namespace lowbit {

enum Kernel { kLinear, kLinearGrad, kBinary, kTtq, kTtqGrad, kTwn };
enum Dtype { kHalf, kBfloat16, kFloat, kDouble };

struct Call {
  int kernel;
  int dtype;
  const void* input[4];  // in the order of the recipe's fields
  void* output[3];
  int64_t outer;
  int64_t channels;
  int64_t inner;
  int bit;
  int paper;
  double hyper;  // max_value or threshold
  int threads;   // of a CPU
  int fail_allocations;
  int guard_allocations;  // 1 or 2: memory that no byte behind it, or before it, belongs to
};

// Ends the process: a kernel that is taken for another one would be compared with that, and pass.
[[noreturn]] inline void Unknown(const char* what, int number) {
  std::fprintf(stderr, "there is no %s %d in tests/cc/kernels.h\n", what, number);
  std::abort();
}

// launch(recipe), which is returned.
template <typename T, class Launch>
auto WithRecipe(const Call& call, const Launch& launch) {
  const auto in = [&](int i) { return static_cast<const T*>(call.input[i]); };
  const auto out = [&](int i) { return static_cast<T*>(call.output[i]); };
  const Layout layout{call.outer, call.channels, call.inner};
  const Whole whole(layout.size());
  const auto max_value = static_cast<Compute<T>>(call.hyper);
  const auto kind = call.paper ? NegativeGradient::kPaper : NegativeGradient::kExact;
  switch (call.kernel) {
    case kLinear:
      return launch(LinearMidTreadHalf<T>{in(0), out(0), whole, call.bit, max_value});
    case kLinearGrad:
      return launch(LinearMidTreadHalfGrad<T>{in(0), in(1), out(0), whole, max_value});
    case kBinary:
      return launch(BinaryMeanScaling<T>{in(0), out(0), layout});
    case kTtq:
      return launch(Ttq<T>{in(0), in(1), in(2), out(0), whole, call.hyper});
    case kTtqGrad:
      return launch(
          TtqGrad<T>{in(0), in(1), in(2), in(3), out(0), out(1), out(2), whole, call.hyper, kind});
    case kTwn:
      return launch(Twn<T>{in(0), out(0), layout, call.hyper});
  }
  Unknown("kernel", call.kernel);
}

template <class Launch>
auto WithRecipe(const Call& call, const Launch& launch) {
  switch (call.dtype) {
    case kHalf:
      return WithRecipe<Half>(call, launch);
    case kBfloat16:
      return WithRecipe<Bfloat16>(call, launch);
    case kFloat:
      return WithRecipe<float>(call, launch);
    case kDouble:
      return WithRecipe<double>(call, launch);
  }
  Unknown("dtype", call.dtype);
}

}  // namespace lowbit

#endif  // LOWBIT_TESTS_KERNELS_H_
