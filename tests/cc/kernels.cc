// SPDX-License-Identifier: Apache-2.0
// The CPU kernels behind a C interface, without TensorFlow, for tests/test_kernels.py.
#include "kernels.h"

#include <cstdlib>
#include <thread>
#include <vector>

#include "cpu/launch.h"

namespace lowbit {
namespace {

// Plain threads and malloc.
class TestHost {
 public:
  explicit TestHost(const Call& call) : call_(call) {}
  ~TestHost() {
    for (void* memory : allocated_) std::free(memory);
  }
  Host host() { return {this, call_.threads, &TestHost::Run, &TestHost::Allocate}; }

 private:
  static void Run(void* self, int64_t most, Work work) {
    const int64_t threads = static_cast<TestHost*>(self)->call_.threads;
    std::vector<std::thread> running;
    for (int64_t i = 0; i < threads && i < most; ++i) running.emplace_back(work.call, work.self);
    for (std::thread& thread : running) thread.join();
  }

  static void* Allocate(void* self, size_t bytes) {
    auto* host = static_cast<TestHost*>(self);
    if (host->call_.fail_allocations) return nullptr;
    host->allocated_.push_back(std::malloc(bytes));
    return host->allocated_.back();
  }

  const Call& call_;
  std::vector<void*> allocated_;
};

}  // namespace
}  // namespace lowbit

LOWBIT_TEST_EXPORT int lowbit_test_run(const lowbit::Call* call) {
  lowbit::TestHost test(*call);
  return lowbit::WithRecipe(
      *call, [&](const auto& recipe) { return lowbit::LaunchCpu(recipe, test.host()); });
}

LOWBIT_TEST_EXPORT const char* lowbit_test_isa() { return lowbit::ActiveIsa(); }

LOWBIT_TEST_EXPORT int lowbit_test_set_isa(const char* name) { return lowbit::SetIsa(name); }

LOWBIT_TEST_EXPORT void lowbit_test_set_stream_bytes(int64_t bytes) {
  lowbit::SetStreamBytes(bytes);
}
