// SPDX-License-Identifier: Apache-2.0
// The inputs and outputs of an op that runs.
#include "tf/op_arguments.h"

namespace lowbit {

int UntypedOpArguments::Bit(const char*) {
  int value = 1;
  Check(GetBit(NextInput(), &value));
  return value;
}

double UntypedOpArguments::Threshold(const char*, double limit) {
  double value = 0;
  Check(GetThreshold(NextInput(), limit, &value));
  return value;
}

const Word* UntypedOpArguments::Packed(const char* name, int planes) {
  const tensorflow::Tensor& packed = NextInput();
  Check(CheckPacked(packed.shape(), name, PackedShape(planes), first_name_));
  return static_cast<const Word*>(packed.data());
}

Word* UntypedOpArguments::PackedOutput(const char*, int planes) {
  tensorflow::Tensor* packed = nullptr;
  if (!ok() || !Check(c_->allocate_output(outputs_++, PackedShape(planes), &packed))) {
    return nullptr;
  }
  return static_cast<Word*>(packed->data());
}

tensorflow::TensorShape UntypedOpArguments::PackedShape(int planes) const {
  return {planes, WordsOf(c_->input(tensors_[0]).NumElements()) / 2};
}

PerTensor UntypedOpArguments::TensorLayout() const {
  return PerTensor(c_->input(tensors_[0]).NumElements());
}

Layout UntypedOpArguments::ChannelLayout(const char*) {
  Layout layout;
  Check(GetLayout(c_->input(tensors_[0]), first_name_, *attribute_++, &layout));
  return layout;
}

Layout UntypedOpArguments::ChannelLayoutIf(const char*, const char* axis) {
  if (*attribute_++) return ChannelLayout(axis);
  ++attribute_;
  return TensorLayout();
}

const void* UntypedOpArguments::NextTensor(const char* name) {
  const tensorflow::Tensor& tensor = c_->input(inputs_);
  if (tensors_.empty()) {
    first_name_ = name;
  } else {
    Check(CheckSameShape(c_->input(tensors_[0]).shape(), first_name_, tensor.shape(), name));
  }
  tensors_.push_back(inputs_++);
  return tensor.data();
}

const void* UntypedOpArguments::NextScalar(const char* name) {
  const tensorflow::Tensor& scalar = NextInput();
  return Check(CheckScalar(scalar.shape(), name)) ? scalar.data() : nullptr;
}

void* UntypedOpArguments::NextTensorOutput() {
  tensorflow::Tensor* y = nullptr;
  const auto& shape = c_->input(tensors_[0]).shape();
  if (!ok() || !Check(c_->forward_input_or_allocate_output(tensors_, outputs_++, shape, &y))) {
    return nullptr;
  }
  return y->data();
}

void* UntypedOpArguments::NextScalarOutput() {
  tensorflow::Tensor* y = nullptr;
  if (!ok() || !Check(c_->allocate_output(outputs_++, {}, &y))) return nullptr;
  return y->data();
}

void* UntypedOpArguments::NextNumberOutput(const char* name, tensorflow::DataType dtype) {
  if (ok()) Check(CheckNumberType(c_->expected_output_dtype(outputs_), dtype, name));
  return NextScalarOutput();
}

bool UntypedOpArguments::Check(const absl::Status& status) {
  if (ok() && !status.ok()) c_->CtxFailure(status);
  return ok();
}

}  // namespace lowbit
