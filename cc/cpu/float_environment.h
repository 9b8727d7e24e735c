// SPDX-License-Identifier: Apache-2.0
// IEEE arithmetic, whatever the calling thread has set up for itself.
#ifndef LOWBIT_CPU_FLOAT_ENVIRONMENT_H_
#define LOWBIT_CPU_FLOAT_ENVIRONMENT_H_

#include <cfenv>

#include "core/types.h"

namespace lowbit {

// While it lives, this thread rounds to nearest and keeps subnormals. TensorFlow's threads flush
// them to zero, which would give -1e-40 the sign of +0.
class FloatEnvironment {
 public:
  LOWBIT_HD FloatEnvironment() {
    std::fegetenv(&saved_);
    std::fesetenv(FE_DFL_ENV);
  }
  LOWBIT_HD ~FloatEnvironment() { std::fesetenv(&saved_); }

 private:
  std::fenv_t saved_;
};

}  // namespace lowbit

#endif  // LOWBIT_CPU_FLOAT_ENVIRONMENT_H_
