// SPDX-License-Identifier: Apache-2.0
// The CPU kernels behind a C interface, without TensorFlow, for tests/test_kernels.py.
#include <cstdlib>
#include <thread>
#include <vector>

#include "core/binary.h"
#include "core/mid_tread.h"
#include "core/ttq.h"
#include "core/twn.h"
#include "cpu/launch.h"

namespace lowbit {
namespace {

enum Kernel { kLinear, kLinearGrad, kBinary, kTtq, kTtqGrad, kTwn };
enum Dtype { kHalf, kBfloat16, kFloat, kDouble };

// As struct Call in tests/test_kernels.py.
struct Call {
  int kernel;
  int dtype;
  const void* input[4];  // in the order of the recipe's fields
  void* output[3];
  int64_t outer;
  int64_t channels;
  int64_t inner;
  int bit;
  int paper;
  double hyper;  // max_value or threshold
  int threads;
  int fail_allocations;
};

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

template <typename T>
bool Run(const Call& call, const Host& host) {
  const auto in = [&](int i) { return static_cast<const T*>(call.input[i]); };
  const auto out = [&](int i) { return static_cast<T*>(call.output[i]); };
  const Layout layout{call.outer, call.channels, call.inner};
  const auto max_value = static_cast<Compute<T>>(call.hyper);
  const auto kind = call.paper ? NegativeGradient::kPaper : NegativeGradient::kExact;
  switch (call.kernel) {
    case kLinear:
      return LaunchCpu(LinearMidTreadHalf<T>{in(0), out(0), layout, call.bit, max_value}, host);
    case kLinearGrad:
      return LaunchCpu(LinearMidTreadHalfGrad<T>{in(0), in(1), out(0), layout, max_value}, host);
    case kBinary:
      return LaunchCpu(BinaryMeanScaling<T>{in(0), out(0), layout}, host);
    case kTtq:
      return LaunchCpu(Ttq<T>{in(0), in(1), in(2), out(0), layout, call.hyper}, host);
    case kTtqGrad:
      return LaunchCpu(
          TtqGrad<T>{in(0), in(1), in(2), in(3), out(0), out(1), out(2), layout, call.hyper, kind},
          host);
    case kTwn:
      return LaunchCpu(Twn<T>{in(0), out(0), layout, call.hyper}, host);
  }
  return false;
}

}  // namespace
}  // namespace lowbit

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int lowbit_test_run(const lowbit::Call* call) {
  lowbit::TestHost test(*call);
  switch (call->dtype) {
    case lowbit::kHalf:
      return lowbit::Run<lowbit::Half>(*call, test.host());
    case lowbit::kBfloat16:
      return lowbit::Run<lowbit::Bfloat16>(*call, test.host());
    case lowbit::kFloat:
      return lowbit::Run<float>(*call, test.host());
    default:
      return lowbit::Run<double>(*call, test.host());
  }
}

EXPORT const char* lowbit_test_isa() { return lowbit::ActiveIsa(); }

EXPORT int lowbit_test_set_isa(const char* name) { return lowbit::SetIsa(name); }

EXPORT void lowbit_test_set_stream_bytes(int64_t bytes) { lowbit::SetStreamBytes(bytes); }
