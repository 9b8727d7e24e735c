// SPDX-License-Identifier: Apache-2.0
// The CPU kernels behind a C interface, without TensorFlow, for tests/test_kernels.py.
#include "kernels.h"

#include "cpu/launch.h"
#include "numpy/thread_host.h"

LOWBIT_TEST_EXPORT int lowbit_test_run(const lowbit::Call* call) {
  lowbit::ThreadHost threads_and_memory(call->threads);
  lowbit::Host host = threads_and_memory.host();
  if (call->fail_allocations) host.allocate = [](void*, size_t) -> void* { return nullptr; };
  return lowbit::WithRecipe(*call,
                            [&](const auto& recipe) { return lowbit::LaunchCpu(recipe, host); });
}

LOWBIT_TEST_EXPORT const char* lowbit_test_isa() { return lowbit::ActiveIsa(); }

LOWBIT_TEST_EXPORT int lowbit_test_set_isa(const char* name) { return lowbit::SetIsa(name); }

LOWBIT_TEST_EXPORT void lowbit_test_set_stream_bytes(int64_t bytes) {
  lowbit::SetStreamBytes(bytes);
}
