// SPDX-License-Identifier: Apache-2.0
// As ArrayRef.h.
#ifndef LOWBIT_TF_XLA_SHIMS_LLVM_ADT_SMALLVECTOR_H_
#define LOWBIT_TF_XLA_SHIMS_LLVM_ADT_SMALLVECTOR_H_

namespace llvm {

template <typename T>
class SmallVector {};

}  // namespace llvm

#endif  // LOWBIT_TF_XLA_SHIMS_LLVM_ADT_SMALLVECTOR_H_
