// SPDX-License-Identifier: Apache-2.0
// A header of TensorFlow 2.19 names this class of LLVM's, but its package lacks LLVM's headers. No
// object of it is ever made. Searched last, so that LLVM's own comes first where it is there.
#ifndef LOWBIT_TF_XLA_SHIMS_LLVM_ADT_ARRAYREF_H_
#define LOWBIT_TF_XLA_SHIMS_LLVM_ADT_ARRAYREF_H_

#include "llvm/ADT/SmallVector.h"

namespace llvm {

template <typename T>
class ArrayRef {
 public:
  ArrayRef(const SmallVector<T>&);  // implicit, as LLVM's
};

}  // namespace llvm

#endif  // LOWBIT_TF_XLA_SHIMS_LLVM_ADT_ARRAYREF_H_
