// SPDX-License-Identifier: Apache-2.0
// XLA's header for writing programs, which moved with TensorFlow 2.19.
#ifndef LOWBIT_TF_XLA_BUILDER_H_
#define LOWBIT_TF_XLA_BUILDER_H_

#if __has_include("xla/hlo/builder/xla_builder.h")
#include "xla/hlo/builder/xla_builder.h"
#else
#include "xla/client/xla_builder.h"
#endif

#endif  // LOWBIT_TF_XLA_BUILDER_H_
