// SPDX-License-Identifier: Apache-2.0
// Bits of the elements of a tensor: planes of 32-bit words, of which bit i of word w is that of
// element 32 w + i, on every device. Behind the last element they are zero. TensorFlow, which has
// more kernels for int64 than for any other integer on a GPU, sees two words as one number.
#ifndef LOWBIT_CORE_PACKED_H_
#define LOWBIT_CORE_PACKED_H_

#include "core/plan.h"

namespace lowbit {

using Word = uint32_t;
constexpr int kWordBits = 32;

// A task begins with a word, so no two write the same one.
static_assert(kBlocks * kRows * kLanes % kWordBits == 0);

// Of a plane.
LOWBIT_HD constexpr int64_t WordsOf(int64_t elements) {
  return 2 * CeilDiv(elements, 2 * kWordBits);
}

// The words beside values of type T: these, but for a T that XLA traces.
template <typename T>
struct PackedOf {
  using type = Word;
};
template <typename T>
using Packed = typename PackedOf<T>::type;

// The planes of a tensor in memory. A formula gets its elements' bits of them as a function, which
// takes the plane.
struct Planes {
  const Word* first;
  int64_t stride;  // words of a plane

  LOWBIT_HD const Word* At(int plane) const { return first + plane * stride; }
};

}  // namespace lowbit

#endif  // LOWBIT_CORE_PACKED_H_
