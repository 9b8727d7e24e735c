// SPDX-License-Identifier: Apache-2.0
// The machine's copy speed: a plain and a streaming-store copy on a fixed set of threads.
//
// copies.py compiles this file for the machine it runs on and calls it through ctypes. The threads
// live until the process ends and spin a little before they sleep, as TensorFlow's do, so that
// starting them is in no time.

#include <atomic>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace {

constexpr int64_t kLine = 64;  // bytes of a cache line; each thread's share is whole lines

#if defined(__AVX__)
void PlainCopy(char* dst, const char* src, int64_t bytes) {
  // By hand, because GCC turns the loop over plain values into memcpy, which may stream.
  for (int64_t i = 0; i < bytes; i += 32) {
    const __m256i value = _mm256_load_si256(reinterpret_cast<const __m256i*>(src + i));
    _mm256_store_si256(reinterpret_cast<__m256i*>(dst + i), value);
  }
}

void StreamingCopy(char* dst, const char* src, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 32) {
    const __m256i value = _mm256_load_si256(reinterpret_cast<const __m256i*>(src + i));
    _mm256_stream_si256(reinterpret_cast<__m256i*>(dst + i), value);
  }
  _mm_sfence();
}
#else
// Without AVX the choice is the C library's.
void PlainCopy(char* dst, const char* src, int64_t bytes) { std::memcpy(dst, src, bytes); }
void StreamingCopy(char* dst, const char* src, int64_t bytes) { std::memcpy(dst, src, bytes); }
#endif

class Copier {
 public:
  explicit Copier(int threads) : threads_(threads) {
    for (int t = 1; t < threads; ++t) workers_.emplace_back([this, t] { Work(t); });
  }

  void Run(char* dst, const char* src, int64_t bytes, bool streaming) {
    dst_ = dst;
    src_ = src;
    bytes_ = bytes;
    copy_ = streaming ? StreamingCopy : PlainCopy;
    pending_ = threads_ - 1;
    round_.fetch_add(1);
    round_.notify_all();
    CopyShare(0);
    while (pending_.load(std::memory_order_acquire) > 0) std::this_thread::yield();
  }

 private:
  void Work(int thread) {
    for (uint32_t round = 0;; ++round) {
      round_.wait(round);
      CopyShare(thread);
      pending_.fetch_sub(1, std::memory_order_release);
    }
  }

  void CopyShare(int thread) const {
    const int64_t lines = bytes_ / kLine;
    const int64_t begin = lines * thread / threads_ * kLine;
    const int64_t end = lines * (thread + 1) / threads_ * kLine;
    copy_(dst_ + begin, src_ + begin, end - begin);
  }

  const int threads_;
  char* dst_ = nullptr;
  const char* src_ = nullptr;
  int64_t bytes_ = 0;
  void (*copy_)(char*, const char*, int64_t) = nullptr;
  std::atomic<uint32_t> round_{0};
  std::atomic<int> pending_{0};
  std::vector<std::thread> workers_;
};

}  // namespace

extern "C" void* Open(int threads) { return new Copier(threads); }

// Copies `bytes`, a multiple of 64, between buffers aligned to 64.
extern "C" void Copy(void* copier, void* dst, const void* src, int64_t bytes, bool streaming) {
  static_cast<Copier*>(copier)->Run(static_cast<char*>(dst), static_cast<const char*>(src), bytes,
                                    streaming);
}
