// SPDX-License-Identifier: Apache-2.0
// Checks of an op's arguments. Each message has the argument, what is required, what was given.
#ifndef LOWBIT_TF_ARGUMENTS_H_
#define LOWBIT_TF_ARGUMENTS_H_

#include <initializer_list>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "core/types.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/framework/tensor.h"

namespace lowbit {

// At graph construction, as far as shapes are known by then.
struct ScalarInput {
  int index;
  absl::string_view name;
};
absl::Status InferScalars(tensorflow::shape_inference::InferenceContext* c,
                          std::initializer_list<ScalarInput> inputs);
absl::Status InferAxis(tensorflow::shape_inference::InferenceContext* c, absl::string_view input);

// At run time.
absl::Status CheckScalar(const tensorflow::Tensor& tensor, absl::string_view name);
absl::Status CheckSameShape(const tensorflow::Tensor& tensor, absl::string_view name,
                            const tensorflow::Tensor& like, absl::string_view like_name);

absl::Status GetBit(const tensorflow::Tensor& bit, int* value);

// Rounded to the compute type C, float or double.
template <typename C>
absl::Status GetMaxValue(const tensorflow::Tensor& max_value, C* value);

// In [0, limit).
absl::Status GetThreshold(const tensorflow::Tensor& threshold, double limit, double* value);

// The tensor folded around `axis`, which counts from the end if negative.
absl::Status GetLayout(const tensorflow::Tensor& tensor, absl::string_view name, int axis,
                       Layout* layout);

}  // namespace lowbit

#endif  // LOWBIT_TF_ARGUMENTS_H_
