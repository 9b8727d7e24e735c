// SPDX-License-Identifier: Apache-2.0
// What headers of newer compilers take from libraries that older systems lack. Linked into a
// wheel's libraries, and hidden there (cmake/manylinux.cmake).
#include <new>

// glibc 2.32, for shared pointers: false has them count with atomic instructions, always right.
extern "C" char __libc_single_threaded;
char __libc_single_threaded = 0;

// GCC 11, for `new T[n]`.
namespace std {
[[noreturn]] void __throw_bad_array_new_length() { throw bad_array_new_length(); }
}  // namespace std
