// SPDX-License-Identifier: Apache-2.0
// The inputs and outputs of an op that runs.
#ifndef LOWBIT_TF_OP_ARGUMENTS_H_
#define LOWBIT_TF_OP_ARGUMENTS_H_

#include "absl/container/inlined_vector.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tf/arguments.h"
#include "tf/attributes.h"

namespace lowbit {

// What an OpArguments<T> does whatever T is.
class UntypedOpArguments {
 public:
  UntypedOpArguments(tensorflow::OpKernelContext* c, const Attributes& attributes)
      : c_(c), attribute_(attributes.data()) {}

  bool ok() const { return c_->status().ok(); }

  int Bit(const char*);
  double Threshold(const char*, double limit);
  const Word* Packed(const char* name, int planes);
  Word* PackedOutput(const char*, int planes);
  template <int n>
  int Choice(const char*, const char* const (&)[n]) {
    return *attribute_++;
  }
  PerTensor TensorLayout() const;
  Layout ChannelLayout(const char* axis);
  Layout ChannelLayoutIf(const char* flag, const char* axis);

 protected:
  // The next of the op, or nullptr. All tensors have one shape, and the first output takes the
  // memory of one of them where nobody else needs it.
  const void* NextTensor(const char* name);
  const void* NextScalar(const char* name);
  void* NextTensorOutput();
  void* NextScalarOutput();
  // Of the op's own dtype, which has to be this one.
  void* NextNumberOutput(const char* name, tensorflow::DataType dtype);

  const tensorflow::Tensor& NextInput() { return c_->input(inputs_++); }
  // Whether there was no error yet, this one included.
  bool Check(const absl::Status& status);

 private:
  // Of the bits of the first tensor's elements.
  tensorflow::TensorShape PackedShape(int planes) const;

  tensorflow::OpKernelContext* const c_;
  const int* attribute_;  // the next one
  int inputs_ = 0;
  int outputs_ = 0;
  const char* first_name_ = nullptr;  // of the first tensor
  absl::InlinedVector<int, 2> tensors_;
};

// Answers an op's Bind with inputs that have been checked and outputs that have been allocated.
// What it answers after the first error, which the context has then, is of no use.
template <typename T>
class OpArguments : public UntypedOpArguments {
 public:
  using UntypedOpArguments::UntypedOpArguments;

  // The elements are of the storage type T, whose bits are those of TensorFlow's.
  const T* Tensor(const char* name) { return static_cast<const T*>(NextTensor(name)); }
  const T* Scalar(const char* name) { return static_cast<const T*>(NextScalar(name)); }
  T* TensorOutput(const char*) { return static_cast<T*>(NextTensorOutput()); }
  T* ScalarOutput(const char*) { return static_cast<T*>(NextScalarOutput()); }

  Compute<T>* NumberOutput(const char* name) {
    constexpr auto kDtype = tensorflow::DataTypeToEnum<Compute<T>>::value;
    return static_cast<Compute<T>*>(NextNumberOutput(name, kDtype));
  }

  Compute<T> MaxValue(const char*) {
    Compute<T> value = 1;
    Check(GetMaxValue(NextInput(), &value));
    return value;
  }
};

}  // namespace lowbit

#endif  // LOWBIT_TF_OP_ARGUMENTS_H_
