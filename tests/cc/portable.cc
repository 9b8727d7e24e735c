// SPDX-License-Identifier: Apache-2.0
// Runs every recipe on fixed data, in every dtype, and prints a hash of the outputs' bits: what
// tests/test_arm64.py compares between processors.
#include <cinttypes>
#include <cstdio>
#include <iterator>
#include <vector>

#include "core/float16.h"
#include "core/math.h"
#include "cpu/launch.h"
#include "kernels.h"
#include "numpy/thread_host.h"

namespace lowbit {
namespace {

const char* const kKernels[] = {"linear", "linear_grad", "binary", "ttq", "ttq_grad", "twn"};
const char* const kDtypes[] = {"float16", "bfloat16", "float32", "float64"};
constexpr int kInputs[] = {1, 2, 1, 3, 4, 1};   // of each kernel
constexpr int kTensors[] = {1, 2, 1, 1, 2, 1};  // of these, the first ones; the others are scales
constexpr int kOutputs[] = {1, 1, 1, 1, 3, 1};

// A kernel that is missing here would be hashed by nobody.
#define LOWBIT_KERNEL(Recipe) +1
constexpr int kRecipes =
#include "core/kernels.inc"
    ;
static_assert(kRecipes == 4 * std::size(kKernels) && std::size(kKernels) == kTwn + 1);

constexpr Layout kLayouts[] = {{1, 1, 0},     {1, 1, 1},   {1, 1, 37},    {1, 1, 4099},
                               {1, 1, 70001}, {9, 5, 1},   {576, 64, 1},  {3, 5000, 1},
                               {9, 16, 2},    {5, 3, 256}, {2, 3, 20001}, {0, 5, 3}};

// The generator of Numerical Recipes: its upper bits are as good as this needs.
class Random {
 public:
  // In [-4, 4), most of it near zero.
  double Next() {
    state_ = state_ * 1664525u + 1013904223u;
    const double u = static_cast<int32_t>(state_) * 0x1p-31;
    return u * u * u * 4;
  }

 private:
  uint32_t state_ = 1;
};

// NaN, infinities, zeros and subnormals of every dtype, among ordinary values.
constexpr double kSpecial[] = {__builtin_nan(""),
                               __builtin_inf(),
                               -__builtin_inf(),
                               -0.0,
                               0.0,
                               6e-8,
                               -1e-40,
                               -4.9e-324,
                               0.35,
                               0.7,
                               1,
                               -1,
                               65504,
                               3.3e38,
                               1e300};

template <typename T>
std::vector<T> Tensor(Random& random, int64_t size, bool special) {
  std::vector<T> x(size);
  for (int64_t i = 0; i < size; ++i) {
    const bool take = special && i % 3 == 0;
    const double value = take ? kSpecial[i / 3 % std::size(kSpecial)] : random.Next();
    x[i] = Narrow<T>(static_cast<Compute<T>>(value));
  }
  return x;
}

// FNV-1a. Every NaN counts as the same one: processors make different ones.
template <typename T>
void Hash(const std::vector<T>& x, uint64_t& hash) {
  for (const T& element : x) {
    unsigned char bytes[sizeof(T)] = {0xff};
    if (!IsNan(Widen(element))) __builtin_memcpy(bytes, &element, sizeof bytes);
    for (unsigned char byte : bytes) hash = (hash ^ byte) * 1099511628211u;
  }
}

template <typename T>
bool Print(int kernel, int dtype, const Layout& layout, bool special) {
  Random random;
  std::vector<std::vector<T>> inputs;
  std::vector<std::vector<T>> outputs;
  Call call{};
  for (int i = 0; i < kInputs[kernel]; ++i) {
    const bool tensor = i < kTensors[kernel];
    inputs.push_back(Tensor<T>(random, tensor ? layout.size() : 1, special && tensor));
    call.input[i] = inputs.back().data();
  }
  for (int i = 0; i < kOutputs[kernel]; ++i) {
    outputs.emplace_back(i == 0 ? layout.size() : 1);
    call.output[i] = outputs.back().data();
  }
  call.kernel = kernel;
  call.dtype = dtype;
  call.outer = layout.outer;
  call.channels = layout.channels;
  call.inner = layout.inner;
  call.bit = 3;
  call.hyper = 0.7;
  ThreadHost one_thread(1);
  const Host host = one_thread.host();
  if (!WithRecipe<T>(call, [&](const auto& recipe) { return LaunchCpu(recipe, host); })) {
    return false;
  }
  uint64_t hash = 14695981039346656037u;
  for (const auto& output : outputs) Hash(output, hash);
  std::printf("%s %s [%" PRId64 ", %" PRId64 ", %" PRId64 "]%s: %016" PRIx64 "\n", kKernels[kernel],
              kDtypes[dtype], layout.outer, layout.channels, layout.inner,
              special ? " special" : "", hash);
  return true;
}

bool PrintAll() {
  bool ok = true;
  for (int kernel = kLinear; kernel <= kTwn; ++kernel) {
    for (const Layout& layout : kLayouts) {
      for (bool special : {false, true}) {
        ok = ok && Print<Half>(kernel, kHalf, layout, special) &&
             Print<Bfloat16>(kernel, kBfloat16, layout, special) &&
             Print<float>(kernel, kFloat, layout, special) &&
             Print<double>(kernel, kDouble, layout, special);
      }
    }
  }
  return ok;
}

}  // namespace
}  // namespace lowbit

int main() {
  std::printf("%s\n", lowbit::ActiveIsa());
  return lowbit::PrintAll() ? 0 : 1;
}
