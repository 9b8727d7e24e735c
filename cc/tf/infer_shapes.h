// SPDX-License-Identifier: Apache-2.0
// The shape functions of the ops, and what all their signatures have.
#ifndef LOWBIT_TF_INFER_SHAPES_H_
#define LOWBIT_TF_INFER_SHAPES_H_

#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tf/attributes.h"

// The attributes of all ops: T of the tensors, M of the hyper-parameters.
#define LOWBIT_ATTR_T "T: {half, bfloat16, float, double} = DT_FLOAT"
#define LOWBIT_ATTR_M "M: {float, double} = DT_FLOAT"

namespace lowbit {

// Answers an op's Bind at the construction of a graph: checks its shapes as far as they are known
// by then, and says those of the outputs.
class ShapeArguments : public NoArguments {
 public:
  explicit ShapeArguments(tensorflow::shape_inference::InferenceContext* c) : c_(c) {}

  const absl::Status& status() const { return status_; }

  const float* Tensor(const char* name);
  const float* Scalar(const char* name);
  const Word* Packed(const char* name, int planes);
  float* TensorOutput(const char*);
  float* ScalarOutput(const char*);
  float* NumberOutput(const char* name) { return ScalarOutput(name); }
  Word* PackedOutput(const char*, int planes);
  int Bit(const char* name) { return Scalar(name), 1; }
  float MaxValue(const char* name) { return Scalar(name), 1; }
  double Threshold(const char* name, double) { return Scalar(name), 0; }
  Layout ChannelLayout(const char* axis);
  Layout ChannelLayoutIf(const char* flag, const char* axis);

 private:
  // Of the bits of the first tensor's elements.
  tensorflow::shape_inference::ShapeHandle PackedShape(int planes);

  tensorflow::shape_inference::InferenceContext* const c_;
  absl::Status status_;
  int inputs_ = 0;
  int outputs_ = 0;
  const char* first_name_ = nullptr;  // of the first tensor
  tensorflow::shape_inference::ShapeHandle shape_;
};

// The shape function of an op that core/kernels.inc lists.
template <class Op>
absl::Status InferShapes(tensorflow::shape_inference::InferenceContext* c) {
  ShapeArguments arguments(c);
  Op::template Bind<float>(arguments);
  return arguments.status();
}

}  // namespace lowbit

#endif  // LOWBIT_TF_INFER_SHAPES_H_
