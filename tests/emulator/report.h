// SPDX-License-Identifier: Apache-2.0
// Ends the process with a message: a kernel did what hangs or is undefined on a GPU.
#ifndef LOWBIT_EMULATOR_REPORT_H_
#define LOWBIT_EMULATOR_REPORT_H_

#include <string>

#include "emulator/vector_types.h"

namespace lowbit::emulator {

// Writes "CUDA emulator: <what>" to stderr and aborts.
[[noreturn]] void Fail(const std::string& what);

std::string ToString(const uint3& index);  // (x, y, z)

}  // namespace lowbit::emulator

#endif  // LOWBIT_EMULATOR_REPORT_H_
