// SPDX-License-Identifier: Apache-2.0
// What an element-wise kernel reads: the elements of a tensor, or packed bits of them. Either is
// fetched in 16 bytes for a vector of elements, before the first use.
#ifndef LOWBIT_CUDA_OPERAND_CUH_
#define LOWBIT_CUDA_OPERAND_CUH_

#include "core/packed.h"
#include "cuda/vector.cuh"

namespace lowbit::cuda {

template <typename T>
struct Elements {
  const T* x;

  __device__ bool IsAligned(int64_t at) const { return cuda::IsAligned(x + at); }
  __device__ __forceinline__ uint4 Fetch(int64_t at, bool aligned) const {
    return aligned ? Load(x + at) : Load(x + at, kLanesOf<T>);
  }
  __device__ __forceinline__ uint4 FetchOne(int64_t at) const { return Load(x + at, 1); }

  // What a formula gets of lane i is operator[](i) of that.
  __device__ __forceinline__ static Lanes<T> Unpack(uint4 raw) { return LanesIn<T>(raw); }
};

// Beside elements of type T: a plane in each of the four words.
template <typename T, int kPlanes>
struct PackedBits {
  static_assert(kPlanes <= 4);

  struct Lanes {
    Word plane[4];

    __device__ __forceinline__ auto operator[](int lane) const {
      return [this, lane](int p) { return (plane[p] >> lane & 1) != 0; };
    }
  };

  Planes planes;

  __device__ bool IsAligned(int64_t) const { return true; }
  __device__ __forceinline__ uint4 Fetch(int64_t at, bool) const {
    const int place = static_cast<int>(at % kWordBits);
    Word bits[4] = {};
#pragma unroll
    for (int p = 0; p < kPlanes; ++p) {
      const Word* word = planes.At(p) + at / kWordBits;
      bits[p] = *word >> place;
      // The vectors of a y that is not aligned may lie across two words.
      if (place > kWordBits - kLanesOf<T>) bits[p] |= word[1] << (kWordBits - place);
    }
    return {bits[0], bits[1], bits[2], bits[3]};
  }
  __device__ __forceinline__ uint4 FetchOne(int64_t at) const {
    Word bits[4] = {};
#pragma unroll
    for (int p = 0; p < kPlanes; ++p) bits[p] = planes.At(p)[at / kWordBits] >> at % kWordBits;
    return {bits[0], bits[1], bits[2], bits[3]};
  }
  __device__ __forceinline__ static Lanes Unpack(uint4 raw) {
    return {{raw.x, raw.y, raw.z, raw.w}};
  }
};

// An input of a formula F, of `size` elements, as a kernel's argument.
template <class F, typename T>
Elements<T> OperandOf(const T* x, int64_t) {
  return {x};
}
template <class F, typename T>
PackedBits<T, F::kPlanes> OperandOf(const Word* packed, int64_t size) {
  return {{packed, WordsOf(size)}};
}

}  // namespace lowbit::cuda

#endif  // LOWBIT_CUDA_OPERAND_CUH_
