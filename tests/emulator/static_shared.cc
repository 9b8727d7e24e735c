// SPDX-License-Identifier: Apache-2.0
// Finds the thread-local segment of this library by the dynamic linker's list.
#include "emulator/static_shared.h"

#include <link.h>

#include <cerrno>
#include <cstddef>

namespace lowbit::emulator {
namespace {

thread_local char anchor;

// What is the same in every thread: how far into its segment the anchor lies.
struct Segment {
  size_t anchor_offset = 0;
  size_t size = 0;
};

int FindSegment(dl_phdr_info* library, size_t, void* result) {
  for (int i = 0; i < library->dlpi_phnum; ++i) {
    if (library->dlpi_phdr[i].p_type != PT_TLS) continue;
    const Memory memory{static_cast<char*>(library->dlpi_tls_data), library->dlpi_phdr[i].p_memsz};
    // In a program linked with -static, the C library's variables are in there as well.
    if (!memory.Contains(&anchor) || memory.Contains(&errno)) continue;
    *static_cast<Segment*>(result) = {static_cast<size_t>(&anchor - memory.begin), memory.size};
    return 1;
  }
  return 0;
}

}  // namespace

Memory StaticShared() {
  static const Segment segment = [] {
    Segment found;
    dl_iterate_phdr(&FindSegment, &found);
    return found;
  }();
  return {&anchor - segment.anchor_offset, segment.size};
}

}  // namespace lowbit::emulator
