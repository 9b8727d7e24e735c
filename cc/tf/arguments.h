// SPDX-License-Identifier: Apache-2.0
// Checks of an op's arguments. Each message has the argument, what is required, what was given.
#ifndef LOWBIT_TF_ARGUMENTS_H_
#define LOWBIT_TF_ARGUMENTS_H_

#include <limits>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "core/math.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/framework/tensor.h"

namespace lowbit {

// Of an output that is a number, whose type follows an attribute.
absl::Status CheckNumberType(tensorflow::DataType given, tensorflow::DataType required,
                             absl::string_view name);

// At graph construction, as far as shapes are known by then.
absl::Status InferScalar(tensorflow::shape_inference::InferenceContext* c,
                         tensorflow::shape_inference::ShapeHandle shape, absl::string_view name);
absl::Status InferSameShape(tensorflow::shape_inference::InferenceContext* c,
                            tensorflow::shape_inference::ShapeHandle shape, absl::string_view name,
                            tensorflow::shape_inference::ShapeHandle like,
                            absl::string_view like_name,
                            tensorflow::shape_inference::ShapeHandle* merged);
// Of a tensor's packed bits, whose shape is `right`.
absl::Status InferPacked(tensorflow::shape_inference::InferenceContext* c,
                         tensorflow::shape_inference::ShapeHandle shape, absl::string_view name,
                         tensorflow::shape_inference::ShapeHandle right, absl::string_view of);
absl::Status InferAxis(tensorflow::shape_inference::InferenceContext* c,
                       tensorflow::shape_inference::ShapeHandle shape, absl::string_view name,
                       int axis);

// At run time. Numbers are read as the kernels read them: subnormal ones count, whatever thread of
// TensorFlow's this is.
absl::Status CheckScalar(const tensorflow::TensorShape& shape, absl::string_view name);
absl::Status CheckSameShape(const tensorflow::TensorShape& shape, absl::string_view name,
                            const tensorflow::TensorShape& like, absl::string_view like_name);
absl::Status CheckPacked(const tensorflow::TensorShape& shape, absl::string_view name,
                         const tensorflow::TensorShape& right, absl::string_view of);

// Which values are right; V may also be one that only a compiled program knows.
template <typename V>
auto IsBit(V bit) {
  return (bit >= 1) & (bit <= 32);
}

// In float64, of a value that is rounded to the compute type C, to neither 0 nor infinity.
template <typename C, typename V>
auto IsMaxValue(V max_value) {
  if constexpr (std::is_same_v<C, double>) {
    const auto is_positive = IsPositive(max_value);
    const auto is_finite = max_value <= std::numeric_limits<double>::max();
    return is_positive & is_finite;
  } else {
    return (max_value > 0x1p-150) & (max_value <= double{std::numeric_limits<C>::max()});
  }
}

template <typename V>
auto IsThreshold(V threshold, double limit) {
  const auto is_negative = IsNegative(threshold);
  const auto is_below = threshold < limit;
  return (is_negative == false) & is_below;
}

absl::Status GetBit(const tensorflow::Tensor& bit, int* value);

// Rounded to the compute type C, float or double.
template <typename C>
absl::Status GetMaxValue(const tensorflow::Tensor& max_value, C* value);

// In [0, limit).
absl::Status GetThreshold(const tensorflow::Tensor& threshold, double limit, double* value);

// `axis`, which counts from the end if negative, as an index.
absl::Status GetChannelAxis(int rank, absl::string_view name, int axis, int* channel_axis);

// The tensor folded around `axis`; one without elements has no channels to tell apart.
absl::Status GetLayout(const tensorflow::Tensor& tensor, absl::string_view name, int axis,
                       Layout* layout);

}  // namespace lowbit

#endif  // LOWBIT_TF_ARGUMENTS_H_
