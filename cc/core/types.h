// SPDX-License-Identifier: Apache-2.0
// Storage types, the compute type of each, and the shape of a tensor as the kernels see it.
#ifndef LOWBIT_CORE_TYPES_H_
#define LOWBIT_CORE_TYPES_H_

#include <cstdint>
#include <type_traits>

// For everything that a formula may call. Forced inline, so that no copy compiled for one
// instruction set is ever picked by the linker for another.
#ifdef __CUDACC__
#define LOWBIT_HD __host__ __device__ __forceinline__
#else
#define LOWBIT_HD inline __attribute__((always_inline))
#endif

// For what is called from another library; everything else is hidden.
#define LOWBIT_EXPORT __attribute__((visibility("default")))

namespace lowbit {

// 16-bit storage. Arithmetic happens in Compute<T>, never in 16 bits.
struct Half {
  uint16_t bits;
};
struct Bfloat16 {
  uint16_t bits;
};

template <typename T>
struct ComputeOf {
  using type = std::conditional_t<std::is_same_v<T, double>, double, float>;
};
template <typename T>
using Compute = typename ComputeOf<T>::type;

// A single number of type E beside values of type T: E itself, but for a T that XLA traces.
template <typename E, typename T>
struct ScalarOf {
  using type = E;
};
template <typename E, typename T>
using Scalar = typename ScalarOf<E, T>::type;

// A dense row-major tensor, folded around its channel axis: [outer, channels, inner]. A quantizer
// with one statistic for the whole tensor has a single channel.
struct Layout {
  int64_t outer = 1;
  int64_t channels = 1;
  int64_t inner = 0;

  // However long the other sides of it are: their product need not be a number of 64 bits.
  LOWBIT_HD bool empty() const { return outer == 0 || channels == 0 || inner == 0; }
  LOWBIT_HD int64_t size() const { return empty() ? 0 : outer * channels * inner; }
  LOWBIT_HD int64_t per_channel() const { return outer * inner; }

  // Whether size() is right, as it is of every tensor that exists.
  LOWBIT_HD bool countable() const { return empty() || outer <= INT64_MAX / channels / inner; }
};

// Counts and sizes of memory are products of what a caller has said, so they stop here: above it is
// no memory, and a few of them can still be added.
constexpr int64_t kTooMany = int64_t{1} << 60;

// a * b * more, for numbers >= 0, or kTooMany where that is larger.
LOWBIT_HD constexpr int64_t Product(int64_t a, int64_t b) {
  return b != 0 && a > kTooMany / b ? kTooMany : a * b;
}
template <typename... More>
LOWBIT_HD constexpr int64_t Product(int64_t a, int64_t b, More... more) {
  return Product(Product(a, b), more...);
}

// One channel, whatever the shape: what a recipe says that has no other.
struct PerTensor : Layout {
  LOWBIT_HD explicit PerTensor(int64_t size) : Layout{1, 1, size} {}
};

// The layouts of a recipe on values of type T: these, but for a T that XLA traces.
template <typename T>
struct LayoutsOf {
  using Tensor = PerTensor;
  using Channels = Layout;
};
template <typename T>
using PerTensorLayout = typename LayoutsOf<T>::Tensor;
template <typename T>
using PerChannelLayout = typename LayoutsOf<T>::Channels;

// A threshold that may be any finite number.
constexpr double kUnlimited = __builtin_inf();

// The statistics of a formula that needs none.
template <typename V>
struct NoStats {};

}  // namespace lowbit

#endif  // LOWBIT_CORE_TYPES_H_
