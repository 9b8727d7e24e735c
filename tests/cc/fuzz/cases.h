// SPDX-License-Identifier: Apache-2.0
// The calls that are tried. Their layouts come from the cases that core/plan.h tells apart, and
// their values from those that formulas do.
#ifndef LOWBIT_TESTS_FUZZ_CASES_H_
#define LOWBIT_TESTS_FUZZ_CASES_H_

#include <string>

#include "kernels.h"
#include "numbers.h"
#include "random.h"

namespace lowbit::fuzz {

enum Kernel {
  kLinear,
  kLinearGrad,
  kBinary,
  kTtq,
  kTtqGrad,
  kTwn,
  kAbsmean,
  kPactGrad,
  kMask,
  kMaskGrad,
  kPactMaskGrad,
  kKernels
};
constexpr const char* kKernelNames[] = {"linear",   "linear_grad", "binary",        "ttq",
                                        "ttq_grad", "twn",         "absmean",       "pact_grad",
                                        "mask",     "mask_grad",   "pact_mask_grad"};
// One of each recipe.
constexpr const char* kOps[] = {"LinearMidTreadHalfQuantizer",
                                "LinearMidTreadHalfQuantizerGrad",
                                "BinaryChannelWiseMeanScalingQuantizer",
                                "TTQWeightQuantizer",
                                "TTQWeightQuantizerGrad",
                                "TWNWeightQuantizer",
                                "AbsmeanWeightQuantizer",
                                "PACTQuantizerGrad",
                                "PACTQuantizerMask",
                                "LinearMidTreadHalfQuantizerMaskGrad",
                                "PACTQuantizerMaskGrad"};
constexpr const char* kDtypeNames[] = {"float16", "bfloat16", "float32", "float64"};
constexpr int kInputs[kKernels] = {1, 2, 1, 3, 4, 1, 1, 2, 1, 2, 2};  // of each kernel
// The first ones; then scales, or a mask.
constexpr int kTensors[kKernels] = {1, 2, 1, 1, 2, 1, 1, 2, 1, 1, 1};
constexpr int kOutputs[kKernels] = {1, 1, 1, 1, 3, 1, 1, 2, 1, 1, 2};  // a tensor, then scalars
constexpr int kPlanes[kKernels] = {0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 2};   // of the mask, if it has one
// Of what type they are: the op's, or for a number the one that it computes in.
constexpr int DtypeOf(int kernel, int output, int dtype) {
  const bool is_number = (kernel == kPactGrad || kernel == kPactMaskGrad) && output == 1;
  return is_number && dtype != kDouble ? kFloat : dtype;
}

// A kernel whose name is missing here would never be tried.
#define LOWBIT_KERNEL(Recipe) +1
constexpr int kRecipes =
#include "core/kernels.inc"
    ;
static_assert(kRecipes == 4 * kKernels);

struct Case {
  int kernel;
  int dtype;
  Layout layout;
  int bit;
  bool paper;
  double hyper;
  Bytes input[4];

  int64_t elements(int input) const { return input < kTensors[kernel] ? layout.size() : 1; }
  // Of what it is aligned to, and of all of it.
  int64_t item(int input) const { return is_mask(input) ? sizeof(Word) : kItemSize[dtype]; }
  int64_t bytes(int input) const {
    return is_mask(input) ? mask_bytes() : elements(input) * kItemSize[dtype];
  }
  int64_t output_item(int output) const {
    return kernel == kMask ? sizeof(Word) : kItemSize[DtypeOf(kernel, output, dtype)];
  }
  int64_t output_bytes(int output) const {
    if (kernel == kMask) return mask_bytes();
    return output == 0 ? bytes(0) : output_item(output);
  }

  bool is_mask(int input) const { return kPlanes[kernel] > 0 && input == 1; }
  int64_t mask_bytes() const { return kPlanes[kernel] * WordsOf(layout.size()) * sizeof(Word); }
};

// One of `threaded` has more elements than a kernel leaves to one thread.
Case RandomCase(Random& random, int64_t threaded);

std::string Describe(const Case& c);

}  // namespace lowbit::fuzz

#endif  // LOWBIT_TESTS_FUZZ_CASES_H_
