// SPDX-License-Identifier: Apache-2.0
// Checks of an op's arguments.
#include "tf/arguments.h"

#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "core/float_environment.h"

namespace lowbit {
namespace {

using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::TensorShapeUtils;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

absl::Status NotSameShape(absl::string_view name, absl::string_view shape,
                          absl::string_view like_name, absl::string_view like) {
  return absl::InvalidArgumentError(
      absl::StrCat(name, " must have the shape of ", like_name, ", ", like, ", got ", shape));
}

absl::Status NotScalar(absl::string_view name, absl::string_view shape) {
  return absl::InvalidArgumentError(absl::StrCat(name, " must be a scalar, got shape ", shape));
}

absl::Status NotPacked(absl::string_view name, absl::string_view shape, absl::string_view right,
                       absl::string_view of) {
  return absl::InvalidArgumentError(absl::StrCat(
      name, " must have the shape ", right, ", an int64 for 64 elements of ", of, ", got ", shape));
}

absl::Status CheckAxis(absl::string_view input, int rank, int axis) {
  if (rank == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(input, " must have a channel axis, so a rank of at least 1, got 0"));
  }
  if (axis < -rank || axis >= rank) {
    return absl::InvalidArgumentError(absl::StrCat(
        "axis must be in [", -rank, ", ", rank, ") for a tensor of rank ", rank, ", got ", axis));
  }
  return absl::OkStatus();
}

// A scalar of type float or double.
double ValueOf(const Tensor& scalar) {
  return scalar.dtype() == tensorflow::DT_DOUBLE ? scalar.scalar<double>()()
                                                 : scalar.scalar<float>()();
}

}  // namespace

absl::Status CheckNumberType(tensorflow::DataType given, tensorflow::DataType required,
                             absl::string_view name) {
  if (given == required) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(name, " must have dtype ",
                                                 tensorflow::DataTypeString(required), ", got ",
                                                 tensorflow::DataTypeString(given)));
}

absl::Status InferScalar(InferenceContext* c, ShapeHandle shape, absl::string_view name) {
  if (!c->RankKnown(shape) || c->Rank(shape) == 0) return absl::OkStatus();
  return NotScalar(name, c->DebugString(shape));
}

absl::Status InferSameShape(InferenceContext* c, ShapeHandle shape, absl::string_view name,
                            ShapeHandle like, absl::string_view like_name, ShapeHandle* merged) {
  if (c->Merge(shape, like, merged).ok()) return absl::OkStatus();
  return NotSameShape(name, c->DebugString(shape), like_name, c->DebugString(like));
}

absl::Status InferPacked(InferenceContext* c, ShapeHandle shape, absl::string_view name,
                         ShapeHandle right, absl::string_view of) {
  ShapeHandle merged;
  if (c->Merge(shape, right, &merged).ok()) return absl::OkStatus();
  return NotPacked(name, c->DebugString(shape), c->DebugString(right), of);
}

absl::Status InferAxis(InferenceContext* c, ShapeHandle shape, absl::string_view name, int axis) {
  return c->RankKnown(shape) ? CheckAxis(name, c->Rank(shape), axis) : absl::OkStatus();
}

absl::Status CheckScalar(const TensorShape& shape, absl::string_view name) {
  if (TensorShapeUtils::IsScalar(shape)) return absl::OkStatus();
  return NotScalar(name, shape.DebugString());
}

absl::Status CheckSameShape(const TensorShape& shape, absl::string_view name,
                            const TensorShape& like, absl::string_view like_name) {
  if (shape == like) return absl::OkStatus();
  return NotSameShape(name, shape.DebugString(), like_name, like.DebugString());
}

absl::Status CheckPacked(const TensorShape& shape, absl::string_view name, const TensorShape& right,
                         absl::string_view of) {
  if (shape == right) return absl::OkStatus();
  return NotPacked(name, shape.DebugString(), right.DebugString(), of);
}

absl::Status GetBit(const Tensor& bit, int* value) {
  TF_RETURN_IF_ERROR(CheckScalar(bit.shape(), "bit"));
  const int given = bit.scalar<int32_t>()();
  if (!IsBit(given)) {
    return absl::InvalidArgumentError(absl::StrCat("bit must be in 1..32, got ", given));
  }
  *value = given;
  return absl::OkStatus();
}

template <typename C>
absl::Status GetMaxValue(const Tensor& max_value, C* value) {
  const FloatEnvironment ieee;
  TF_RETURN_IF_ERROR(CheckScalar(max_value.shape(), "max_value"));
  const double given = ValueOf(max_value);
  if (!IsMaxValue<C>(given)) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_value must be finite and > 0, got ", given));
  }
  *value = static_cast<C>(given);
  return absl::OkStatus();
}

template absl::Status GetMaxValue(const Tensor& max_value, float* value);
template absl::Status GetMaxValue(const Tensor& max_value, double* value);

absl::Status GetThreshold(const Tensor& threshold, double limit, double* value) {
  const FloatEnvironment ieee;
  TF_RETURN_IF_ERROR(CheckScalar(threshold.shape(), "threshold"));
  const double given = ValueOf(threshold);
  if (!IsThreshold(given, limit)) {
    const std::string range =
        std::isinf(limit) ? "finite and >= 0" : absl::StrCat("in [0, ", limit, ")");
    return absl::InvalidArgumentError(absl::StrCat("threshold must be ", range, ", got ", given));
  }
  *value = given;
  return absl::OkStatus();
}

absl::Status GetChannelAxis(int rank, absl::string_view name, int axis, int* channel_axis) {
  TF_RETURN_IF_ERROR(CheckAxis(name, rank, axis));
  *channel_axis = axis < 0 ? axis + rank : axis;
  return absl::OkStatus();
}

absl::Status GetLayout(const Tensor& tensor, absl::string_view name, int axis, Layout* layout) {
  const int rank = tensor.dims();
  int channel;
  TF_RETURN_IF_ERROR(GetChannelAxis(rank, name, axis, &channel));
  *layout = PerTensor(0);
  // The product of the other sides may exceed 64 bits then.
  if (tensor.NumElements() == 0) return absl::OkStatus();
  *layout = {1, tensor.dim_size(channel), 1};
  for (int i = 0; i < channel; ++i) layout->outer *= tensor.dim_size(i);
  for (int i = channel + 1; i < rank; ++i) layout->inner *= tensor.dim_size(i);
  return absl::OkStatus();
}

}  // namespace lowbit
