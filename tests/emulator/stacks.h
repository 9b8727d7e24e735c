// SPDX-License-Identifier: Apache-2.0
// The stacks of fibers, kept from launch to launch: new pages cost more than most kernels.
#ifndef LOWBIT_EMULATOR_STACKS_H_
#define LOWBIT_EMULATOR_STACKS_H_

#include "emulator/fiber.h"

namespace lowbit::emulator {

Stack TakeStack();
void GiveStack(const Stack& stack);

}  // namespace lowbit::emulator

#endif  // LOWBIT_EMULATOR_STACKS_H_
