// SPDX-License-Identifier: Apache-2.0
// The shape functions of the ops.
#include "tf/infer_shapes.h"

#include "tf/arguments.h"

namespace lowbit {

const float* ShapeArguments::Tensor(const char* name) {
  if (first_name_ == nullptr) {
    first_name_ = name;
    shape_ = c_->input(inputs_++);
  } else {
    const auto shape = c_->input(inputs_++);
    status_.Update(InferSameShape(c_, shape_, first_name_, shape, name, &shape_));
  }
  return nullptr;
}

const float* ShapeArguments::Scalar(const char* name) {
  status_.Update(InferScalar(c_, c_->input(inputs_++), name));
  return nullptr;
}

const Word* ShapeArguments::Packed(const char* name, int planes) {
  const auto given = c_->input(inputs_++);
  status_.Update(InferPacked(c_, given, name, PackedShape(planes), first_name_));
  return nullptr;
}

float* ShapeArguments::TensorOutput(const char*) {
  c_->set_output(outputs_++, shape_);
  return nullptr;
}

float* ShapeArguments::ScalarOutput(const char*) {
  c_->set_output(outputs_++, c_->Scalar());
  return nullptr;
}

Word* ShapeArguments::PackedOutput(const char*, int planes) {
  c_->set_output(outputs_++, PackedShape(planes));
  return nullptr;
}

tensorflow::shape_inference::ShapeHandle ShapeArguments::PackedShape(int planes) {
  const auto elements = c_->NumElements(shape_);
  if (!c_->ValueKnown(elements)) return c_->Matrix(planes, c_->UnknownDim());
  return c_->Matrix(planes, WordsOf(c_->Value(elements)) / 2);
}

Layout ShapeArguments::ChannelLayout(const char* axis) {
  int value = 0;
  status_.Update(c_->GetAttr(axis, &value));
  status_.Update(InferAxis(c_, shape_, first_name_, value));
  return {};
}

Layout ShapeArguments::ChannelLayoutIf(const char* flag, const char* axis) {
  bool value = false;
  status_.Update(c_->GetAttr(flag, &value));
  return value ? ChannelLayout(axis) : Layout{};
}

}  // namespace lowbit
