// SPDX-License-Identifier: Apache-2.0
// Packed bits (core/packed.h) in HLO.
#ifndef LOWBIT_TF_XLA_PACKED_H_
#define LOWBIT_TF_XLA_PACKED_H_

#include <vector>

#include "core/packed.h"
#include "tf_xla/symbol.h"

namespace lowbit {

// The planes of a tensor, int64[planes, words / 2].
struct HloWords {
  xla::XlaOp op;
};
template <typename T>
struct PackedOf<Traced<T>> {
  using type = HloWords;
};

// For each word and bit, the bit's place.
inline xla::XlaOp BitPlaces(xla::XlaBuilder* builder, int64_t words) {
  return xla::Iota(builder, xla::ShapeUtil::MakeShape(xla::U32, {words, kWordBits}), 1);
}

// A plane of the bits, int64[1, words / 2]. Of sizes that only the program knows, the largest are
// packed.
inline xla::XlaOp PackBits(xla::XlaOp bits) {
  xla::XlaBuilder* const builder = bits.builder();
  return builder->ReportErrorOrReturn([&]() -> absl::StatusOr<xla::XlaOp> {
    const auto shape = builder->GetShape(bits);
    if (!shape.ok()) return shape.status();
    const int64_t size = xla::ShapeUtil::ElementsIn(*shape);
    const int64_t words = WordsOf(size);
    xla::XlaOp row = xla::ConvertElementType(bits, xla::U32);
    for (int i = 0; i < static_cast<int>(shape->dimensions().size()); ++i) {
      if (shape->is_dynamic_dimension(i)) row = xla::RemoveDynamicDimension(row, i);
    }
    const xla::XlaOp zero = xla::ConstantR0<uint32_t>(builder, 0);
    row = xla::PadInDim(xla::Reshape(row, {size}), zero, 0, 0, words * kWordBits - size);
    const xla::XlaOp placed =
        xla::ShiftLeft(xla::Reshape(row, {words, kWordBits}), BitPlaces(builder, words));
    const auto add = builder->CreateSubBuilder("add");
    const xla::Shape word = xla::ShapeUtil::MakeShape(xla::U32, {});
    xla::Add(xla::Parameter(add.get(), 0, word, "a"), xla::Parameter(add.get(), 1, word, "b"));
    const auto computation = add->Build();
    if (!computation.ok()) return computation.status();
    const xla::XlaOp plane = xla::Reduce(placed, zero, *computation, {1});
    return xla::BitcastConvertType(xla::Reshape(plane, {1, words / 2, 2}), xla::S64);
  });
}

// The bits of a plane, in the shape of `like`.
inline xla::XlaOp UnpackBits(xla::XlaOp planes, int plane, xla::XlaOp like) {
  xla::XlaBuilder* const builder = like.builder();
  return builder->ReportErrorOrReturn([&]() -> absl::StatusOr<xla::XlaOp> {
    const auto shape = builder->GetShape(like);
    if (!shape.ok()) return shape.status();
    const int64_t size = xla::ShapeUtil::ElementsIn(*shape);
    const int64_t count = WordsOf(size);
    const xla::XlaOp numbers = xla::SliceInDim(planes, plane, plane + 1, 1, 0);
    const xla::XlaOp row = xla::Reshape(xla::BitcastConvertType(numbers, xla::U32), {count});
    const xla::XlaOp shifted = xla::ShiftRightLogical(
        xla::BroadcastInDim(row, {count, kWordBits}, {0}), BitPlaces(builder, count));
    const xla::XlaOp bit = xla::And(shifted, xla::ConstantR0<uint32_t>(builder, 1));
    const xla::XlaOp bits = xla::SliceInDim(xla::Reshape(bit, {count * kWordBits}), 0, size, 1, 0);
    xla::XlaOp mask =
        xla::Ne(xla::Reshape(bits, shape->dimensions()), xla::ConstantR0<uint32_t>(builder, 0));
    for (int i = 0; i < static_cast<int>(shape->dimensions().size()); ++i) {
      if (shape->is_dynamic_dimension(i)) {
        mask = xla::SetDimensionSize(mask, xla::GetDimensionSize(like, i), i);
      }
    }
    return mask;
  });
}

}  // namespace lowbit

#endif  // LOWBIT_TF_XLA_PACKED_H_
