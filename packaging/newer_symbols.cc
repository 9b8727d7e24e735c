// SPDX-License-Identifier: Apache-2.0
// What headers of newer compilers take from libraries that older systems lack. Linked into a
// wheel's libraries, and hidden there (cmake/manylinux.cmake).
#include <exception>
#include <new>

// glibc 2.32, for shared pointers: false has them count with atomic instructions, always right.
extern "C" char __libc_single_threaded;
char __libc_single_threaded = 0;

// GCC 11, for `new T[n]`.
namespace std {
[[noreturn]] void __throw_bad_array_new_length() { throw bad_array_new_length(); }
}  // namespace std

// GCC 11, for copying an exception_ptr in place. What copied and destroyed one before is still in
// the C++ library, under the version that it had then; so not under the name of a local copy.
extern "C" {
void CopyExceptionPtr(void* to, const void* from);
void DestroyExceptionPtr(void* pointer);
}
__asm__(".symver CopyExceptionPtr, _ZNSt15__exception_ptr13exception_ptrC1ERKS0_@CXXABI_1.3.3");
__asm__(".symver DestroyExceptionPtr, _ZNSt15__exception_ptr13exception_ptrD1Ev@CXXABI_1.3.3");

void std::__exception_ptr::exception_ptr::_M_addref() noexcept {
  void* counted;  // never destroyed, so that its count stays
  CopyExceptionPtr(&counted, this);
}

void std::__exception_ptr::exception_ptr::_M_release() noexcept {
  DestroyExceptionPtr(&_M_exception_object);
  _M_exception_object = nullptr;
}
