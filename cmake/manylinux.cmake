# SPDX-License-Identifier: Apache-2.0
# Has every library linked for systems as old as a wheel's manylinux tag says, whatever this one is.
execute_process(COMMAND ${CMAKE_CXX_COMPILER} -print-file-name=libc.so.6
                OUTPUT_VARIABLE libc OUTPUT_STRIP_TRAILING_WHITESPACE)
set(stubs_dir ${PROJECT_BINARY_DIR}/glibc_stubs)
file(MAKE_DIRECTORY ${stubs_dir})
execute_process(
  COMMAND ${Python_EXECUTABLE} ${PROJECT_SOURCE_DIR}/packaging/glibc_stubs.py ${libc} ${stubs_dir}
  OUTPUT_VARIABLE stubs COMMAND_ERROR_IS_FATAL ANY)
string(STRIP "${stubs}" stubs)
string(REPLACE "\n" ";" stubs "${stubs}")

foreach(stub IN LISTS stubs)
  add_library(${stub} SHARED ${stubs_dir}/${stub}.cc)
  set_target_properties(${stub} PROPERTIES
    PREFIX "" SUFFIX "" NO_SONAME ON CXX_VISIBILITY_PRESET default
    LIBRARY_OUTPUT_DIRECTORY ${stubs_dir})
  target_compile_options(${stub} PRIVATE -fno-builtin -w)
  target_link_options(${stub} PRIVATE
    -nostdlib -Wl,-soname,${stub} -Wl,--version-script=${stubs_dir}/${stub}.map)
endforeach()
add_library(lowbit_newer_symbols STATIC packaging/newer_symbols.cc)

# For every target from here on. Before the system's own libraries, which come last; but also before
# CUDA's runtime, so each is kept whether anything before it needs it or not.
add_link_options(-Wl,--no-as-needed)
link_libraries(lowbit_newer_symbols ${stubs})
