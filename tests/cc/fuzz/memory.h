// SPDX-License-Identifier: Apache-2.0
// Memory between guard pages: an access before or past it ends the process, a write around it
// within its page is seen afterwards.
#ifndef LOWBIT_TESTS_FUZZ_MEMORY_H_
#define LOWBIT_TESTS_FUZZ_MEMORY_H_

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace lowbit::fuzz {

enum class Place { kAtEnd, kAtBegin, kMiddle };

class Slot {
 public:
  static constexpr int64_t kCapacity = int64_t{32} << 20;

  Slot() {
    const int64_t page = sysconf(_SC_PAGESIZE);
    void* memory =
        mmap(nullptr, kCapacity + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    begin_ = static_cast<unsigned char*>(memory) + page;
    if (memory == MAP_FAILED || mprotect(begin_, kCapacity, PROT_READ | PROT_WRITE) != 0) abort();
  }

  // That many bytes, each `poison`, at a multiple of `alignment` beside a guard, or `offset`
  // elements of that size past a multiple of 64.
  void* Take(int64_t bytes, int64_t alignment, Place place, int64_t offset, int poison) {
    const int64_t padded = (bytes + alignment - 1) / alignment * alignment;
    at_ = begin_;
    if (place == Place::kAtEnd) at_ = begin_ + kCapacity - padded;
    if (place == Place::kMiddle) at_ = begin_ + kMargin + offset * alignment;
    bytes_ = bytes;
    std::memset(before(), kSentinel, at_ - before());
    std::memset(at_, poison, bytes_);
    std::memset(at_ + bytes_, kSentinel, after() - (at_ + bytes_));
    return at_;
  }

  // Whether nothing was written around what was taken last.
  bool Clean() const { return AllSentinels(before(), at_) && AllSentinels(at_ + bytes_, after()); }

 private:
  static constexpr int64_t kMargin = 256;
  static constexpr unsigned char kSentinel = 0x5a;

  unsigned char* before() const { return at_ - begin_ < kMargin ? begin_ : at_ - kMargin; }
  unsigned char* after() const {
    unsigned char* end = begin_ + kCapacity;
    return end - (at_ + bytes_) < kMargin ? end : at_ + bytes_ + kMargin;
  }
  static bool AllSentinels(const unsigned char* from, const unsigned char* to) {
    for (; from < to; ++from) {
      if (*from != kSentinel) return false;
    }
    return true;
  }

  unsigned char* begin_;
  unsigned char* at_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace lowbit::fuzz

#endif  // LOWBIT_TESTS_FUZZ_MEMORY_H_
