// SPDX-License-Identifier: Apache-2.0
#include "runtime.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <thread>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace lowbit::fuzz {

#if defined(__SSE__)
namespace {
constexpr unsigned kFlags = 0x3f;  // what has happened, not how to compute
constexpr unsigned kMaskedTraps = 0x1f80;
}  // namespace

unsigned GetArithmetic() { return _mm_getcsr() & ~kFlags; }
void SetArithmetic(unsigned state) { _mm_setcsr(state); }
unsigned RandomArithmetic(Random& random) {
  const unsigned flush = random.OneIn(2) ? 0x8040 : 0;  // results and operands, as TensorFlow does
  return kMaskedTraps | flush | static_cast<unsigned>(random.Between(0, 3)) << 13;
}
#else
unsigned GetArithmetic() { return 0; }
void SetArithmetic(unsigned) {}
unsigned RandomArithmetic(Random&) { return 0; }
#endif

Threads::Threads(int count, int64_t stack_bytes) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  if (pthread_attr_setstacksize(&attributes, stack_bytes) != 0) abort();
  threads_.resize(count);
  for (pthread_t& thread : threads_) {
    if (pthread_create(&thread, &attributes, &Threads::Loop, this) != 0) abort();
  }
  pthread_attr_destroy(&attributes);
}

Threads::~Threads() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    end_ = true;
  }
  came_.notify_all();
  for (pthread_t thread : threads_) pthread_join(thread, nullptr);
}

void Threads::Queue(std::function<void()> task) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  came_.notify_one();
}

void Threads::Run(const std::function<void()>& task) {
  std::mutex mutex;
  std::condition_variable done;
  bool is_done = false;
  Queue([&] {
    task();
    const std::lock_guard<std::mutex> lock(mutex);
    is_done = true;
    done.notify_one();
  });
  std::unique_lock<std::mutex> lock(mutex);
  done.wait(lock, [&] { return is_done; });
}

void* Threads::Loop(void* self) {
  auto& threads = *static_cast<Threads*>(self);
  for (;;) {
    std::unique_lock<std::mutex> lock(threads.mutex_);
    threads.came_.wait(lock, [&] { return threads.end_ || !threads.tasks_.empty(); });
    if (threads.end_) return nullptr;
    const std::function<void()> task = std::move(threads.tasks_.front());
    threads.tasks_.pop_front();
    lock.unlock();
    task();
  }
}

HostileRuntime::HostileRuntime(Threads& workers, std::vector<Slot>& scratch, int64_t threads,
                               Helpers helpers, int fail_at, int64_t most_bytes, uint64_t seed)
    : workers_(workers),
      scratch_(scratch),
      threads_(threads),
      helpers_(helpers),
      fail_at_(fail_at),
      most_bytes_(most_bytes),
      random_(seed, 0) {}

const char* HostileRuntime::problem() const {
  if (too_much_) return "asked for more memory than its tensor can need";
  if (arithmetic_changed_) return "left a worker's arithmetic changed";
  for (int i = 0; i < allocations_; ++i) {
    if (i != fail_at_ && !scratch_[i].Clean()) return "wrote around its memory";
  }
  return nullptr;
}

void HostileRuntime::Run(void* self, int64_t most, Work work) {
  auto& runtime = *static_cast<HostileRuntime*>(self);
  const bool instead = runtime.helpers_ == Helpers::kInstead;
  int64_t helpers = std::min(runtime.threads_, most) - 1;
  if (runtime.helpers_ == Helpers::kNone) helpers = 0;
  if (instead) helpers = 1;
  runtime.running_ = helpers;
  for (int64_t i = 0; i < helpers; ++i) {
    const unsigned arithmetic = RandomArithmetic(runtime.random_);
    const int64_t wait = runtime.helpers_ == Helpers::kLate ? runtime.random_.Between(0, 200) : 0;
    runtime.workers_.Queue(
        [&runtime, work, arithmetic, wait] { runtime.Help(work, arithmetic, wait); });
  }
  if (!instead) work.call(work.self);
  std::unique_lock<std::mutex> lock(runtime.mutex_);
  runtime.done_.wait(lock, [&] { return runtime.running_ == 0; });
}

void HostileRuntime::Help(Work work, unsigned arithmetic, int64_t microseconds) {
  if (microseconds > 0) std::this_thread::sleep_for(std::chrono::microseconds(microseconds));
  const unsigned own = GetArithmetic();
  SetArithmetic(arithmetic);
  work.call(work.self);
  const bool changed = GetArithmetic() != arithmetic;
  SetArithmetic(own);
  const std::lock_guard<std::mutex> lock(mutex_);
  arithmetic_changed_ = arithmetic_changed_ || changed;
  --running_;
  done_.notify_one();  // under the lock: the waiting thread ends this object
}

void* HostileRuntime::Allocate(void* self, size_t bytes) {
  auto& runtime = *static_cast<HostileRuntime*>(self);
  const int number = runtime.allocations_++;
  const bool too_much =
      bytes > static_cast<size_t>(std::min(runtime.most_bytes_, Slot::kCapacity)) ||
      number >= static_cast<int>(runtime.scratch_.size());
  runtime.too_much_ = runtime.too_much_ || too_much;
  if (too_much || number == runtime.fail_at_) {
    runtime.allocations_ -= too_much;
    runtime.failed_ = true;
    return nullptr;
  }
  const Place place = runtime.random_.OneIn(3) ? Place::kAtBegin : Place::kAtEnd;
  constexpr int kPoisons[] = {0x00, 0xff, 0x7f, 0x5a};
  constexpr int64_t kOfMalloc = 16;
  return runtime.scratch_[number].Take(static_cast<int64_t>(bytes), kOfMalloc, place, 0,
                                       runtime.random_.Pick(kPoisons));
}

}  // namespace lowbit::fuzz
