// SPDX-License-Identifier: Apache-2.0
// What the cases of the emulator's tests share.
#ifndef LOWBIT_TESTS_CC_EMULATOR_H_
#define LOWBIT_TESTS_CC_EMULATOR_H_

#include <cmath>
#include <cstdio>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "emulator_launcher.cuh"

// By name; each says whether the results are right.
using Cases = std::map<std::string, std::function<bool()>>;

// Those with a planted bug.
const Cases& Bugs();

inline bool Launched(cudaError_t error) {
  if (error != cudaSuccess) std::fprintf(stderr, "%s\n", cudaGetErrorString(error));
  return error == cudaSuccess;
}

// Of a kernel with arguments (y, more...); y is what `right` says.
template <class Kernel, class... A>
bool Gives(const std::function<float(int)>& right, const Launcher& launcher, Kernel kernel,
           A... more) {
  std::vector<float> y(launcher.blocks * launcher.threads, NAN);
  if (!Launched(launcher(kernel, y.data(), more...))) return false;
  bool equal = true;
  for (size_t i = 0; i < y.size(); ++i) equal &= y[i] == right(i);
  return equal;
}

#endif  // LOWBIT_TESTS_CC_EMULATOR_H_
