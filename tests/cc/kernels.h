// SPDX-License-Identifier: Apache-2.0
// A call of an op through a C interface. As in tests/support/kernels.py.
#ifndef LOWBIT_TESTS_KERNELS_H_
#define LOWBIT_TESTS_KERNELS_H_

#include <cstdio>
#include <cstdlib>
#include <iterator>

#include "core/call.h"

#define LOWBIT_TEST_EXPORT extern "C" __attribute__((visibility("default")))

namespace lowbit {

struct TestCall {
  const char* op;  // its name in TensorFlow
  int dtype;
  const void* input[4];  // as all that follows, in the op's order
  void* output[3];
  double number[2];
  int choice[1];
  int64_t outer;
  int64_t channels;
  int64_t inner;
  int threads;  // of a CPU
  int fail_allocations;
  int guard_allocations;  // 1 or 2: memory that no byte behind it, or before it, belongs to

  Layout layout() const { return {outer, channels, inner}; }
};

// launch(recipe). Ends the process where there is no such op: one that is taken for another would
// be compared with that, and pass.
template <class Launch>
void WithRecipe(const TestCall& test, const Launch& launch) {
  const Call call{{test.input, std::size(test.input)},
                  {test.output, std::size(test.output)},
                  {test.number, std::size(test.number)},
                  {test.choice, std::size(test.choice)},
                  test.layout()};
  if (WithRecipe(test.op, test.dtype, call, launch)) return;
  std::fprintf(stderr, "there is no op %s, or no dtype %d\n", test.op, test.dtype);
  std::abort();
}

}  // namespace lowbit

#endif  // LOWBIT_TESTS_KERNELS_H_
