# SPDX-License-Identifier: Apache-2.0
# lowbit_cuda: the CUDA kernels, with a CUDA runtime of their own. Sets LOWBIT_CUDA_FOUND.
#
# nvcc compiles one file that knows nothing of TensorFlow; the rest is the C++ compiler's. CMake's
# own CUDA language is not used: it wants to link a program, which the nvcc of a Python package
# cannot.
set(LOWBIT_CUDA_FOUND OFF)
set(nvcc_hints)
foreach(folder IN ITEMS "$ENV{CUDA_HOME}" "$ENV{CUDA_PATH}")
  if(folder)
    list(APPEND nvcc_hints ${folder}/bin)
  endif()
endforeach()
if(Python_EXECUTABLE)
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c "import sysconfig; print(sysconfig.get_path('purelib'))"
    OUTPUT_VARIABLE purelib OUTPUT_STRIP_TRAILING_WHITESPACE)
  file(GLOB nvcc_packages ${purelib}/nvidia/*/bin)
endif()
find_program(LOWBIT_NVCC nvcc HINTS ${nvcc_hints} PATHS ${nvcc_packages} /usr/local/cuda/bin
             DOC "CUDA's compiler")
if(NOT LOWBIT_NVCC)
  if(LOWBIT_CUDA STREQUAL "ON")
    message(FATAL_ERROR "LOWBIT_CUDA=ON, but no nvcc was found in $CUDA_HOME/bin, on PATH or in "
                        "site-packages: install CUDA 12.0 or newer, or run `make cuda-toolkit`")
  endif()
  message(STATUS "CUDA: no nvcc found, so no GPU kernels")
  return()
endif()

# Where nvcc may be a script or a link, its own account of its folders is the one to trust. Without
# one, as where a distribution has its own profile, they are where all packages' are.
file(WRITE ${PROJECT_BINARY_DIR}/check.cu "#include <cooperative_groups.h>\n")
execute_process(
  COMMAND ${LOWBIT_NVCC} --dryrun -c ${PROJECT_BINARY_DIR}/check.cu -o check.o
  ERROR_VARIABLE dryrun RESULT_VARIABLE status)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "${LOWBIT_NVCC} does not work (or set LOWBIT_CUDA=OFF):\n${dryrun}")
endif()
set(cuda_search)
if(dryrun MATCHES "TOP=([^\n]+)")
  string(STRIP "${CMAKE_MATCH_1}" cuda_root)
  set(cuda_search NO_DEFAULT_PATH HINTS ${cuda_root} ${cuda_root}/targets/x86_64-linux
      ${cuda_root}/targets/sbsa-linux)
endif()
execute_process(COMMAND ${LOWBIT_NVCC} --version OUTPUT_VARIABLE nvcc_version)
execute_process(COMMAND ${LOWBIT_NVCC} --list-gpu-arch OUTPUT_VARIABLE nvcc_architectures)
string(REGEX MATCH "release ([0-9.]+)" _ "${nvcc_version}")
set(LOWBIT_CUDA_VERSION ${CMAKE_MATCH_1})
if(LOWBIT_CUDA_VERSION VERSION_LESS 12.0)
  message(FATAL_ERROR "CUDA 12.0 or newer is needed, ${LOWBIT_NVCC} is ${LOWBIT_CUDA_VERSION}: "
                      "set CUDA_HOME to a newer one, or LOWBIT_CUDA=OFF")
endif()
find_path(LOWBIT_CUDA_INCLUDE cuda_runtime.h ${cuda_search} PATH_SUFFIXES include)
find_library(LOWBIT_CUDART cudart_static ${cuda_search} PATH_SUFFIXES lib64 lib)
if(NOT LOWBIT_CUDA_INCLUDE OR NOT LOWBIT_CUDART)
  message(FATAL_ERROR "${LOWBIT_NVCC} has no cuda_runtime.h or no libcudart_static.a: install "
                      "CUDA's runtime for developers, or set LOWBIT_CUDA=OFF")
endif()
# Each nvcc takes a range of host compilers, and a Python package may lack some of its headers.
execute_process(
  COMMAND ${LOWBIT_NVCC} -E ${PROJECT_BINARY_DIR}/check.cu -ccbin ${CMAKE_CXX_COMPILER} -std=c++17
  OUTPUT_QUIET ERROR_VARIABLE errors RESULT_VARIABLE status)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "${LOWBIT_NVCC} does not work with ${CMAKE_CXX_COMPILER} (set CXX to another "
                      "compiler, or LOWBIT_CUDA=OFF):\n${errors}")
endif()

# 90-real is code for that GPU, 90-virtual what newer ones compile for themselves, 90 both. What
# this nvcc does not know is left out.
set(gencode)
set(LOWBIT_CUDA_BUILT)
foreach(architecture IN LISTS LOWBIT_CUDA_ARCHITECTURES)
  if(NOT architecture MATCHES "^([0-9]+)(-real|-virtual)?$")
    message(FATAL_ERROR "LOWBIT_CUDA_ARCHITECTURES must hold entries like 90, 90-real or "
                        "90-virtual, got ${architecture}")
  endif()
  set(number ${CMAKE_MATCH_1})
  set(kind ${CMAKE_MATCH_2})
  if(NOT nvcc_architectures MATCHES "compute_${number}\n")
    continue()
  endif()
  list(APPEND LOWBIT_CUDA_BUILT ${architecture})
  if(NOT kind STREQUAL "-virtual")
    list(APPEND gencode -gencode arch=compute_${number},code=sm_${number})
  endif()
  if(NOT kind STREQUAL "-real")
    list(APPEND gencode -gencode arch=compute_${number},code=compute_${number})
  endif()
endforeach()
if(NOT gencode)
  message(FATAL_ERROR "${LOWBIT_NVCC} knows none of LOWBIT_CUDA_ARCHITECTURES, "
                      "${LOWBIT_CUDA_ARCHITECTURES}")
endif()
list(JOIN LOWBIT_CUDA_BUILT " " LOWBIT_CUDA_BUILT)
message(STATUS "CUDA ${LOWBIT_CUDA_VERSION}: ${LOWBIT_NVCC}, for ${LOWBIT_CUDA_BUILT}")

# --compress-mode came with CUDA 12.8.
set(compress)
if(LOWBIT_CUDA_VERSION VERSION_GREATER_EQUAL 12.8)
  set(compress --compress-mode=size)
endif()
function(lowbit_compile_cuda source object)
  add_custom_command(
    OUTPUT ${object}
    COMMAND ${LOWBIT_NVCC} -c ${PROJECT_SOURCE_DIR}/${source} -o ${object}
            -ccbin ${CMAKE_CXX_COMPILER} -std=c++17 -O3 ${LOWBIT_NVCC_FLAGS} ${gencode} ${compress}
            --threads 0 -MD -MF ${object}.d -I ${PROJECT_SOURCE_DIR}/cc
            -Xcompiler -fPIC,-fvisibility=hidden,-ffp-contract=off,${LOWBIT_FILE_NAMES}
    DEPENDS ${PROJECT_SOURCE_DIR}/${source}
    DEPFILE ${object}.d
    COMMENT "Building ${source} for ${LOWBIT_CUDA_BUILT}"
    VERBATIM COMMAND_EXPAND_LISTS)
endfunction()

set(cuda_object ${PROJECT_BINARY_DIR}/cuda_kernels.o)
lowbit_compile_cuda(cc/cuda/kernels.cu ${cuda_object})
add_custom_target(lowbit_cuda_object DEPENDS ${cuda_object})

add_library(lowbit_cuda OBJECT cc/cuda/errors.cc cc/cuda/gpu.cc cc/cuda/residency.cc)
add_dependencies(lowbit_cuda lowbit_cuda_object)
target_include_directories(lowbit_cuda SYSTEM PUBLIC ${LOWBIT_CUDA_INCLUDE})
target_compile_definitions(lowbit_cuda PRIVATE "LOWBIT_CUDA_BUILT=\"${LOWBIT_CUDA_BUILT}\"")
target_link_libraries(lowbit_cuda INTERFACE ${cuda_object} ${LOWBIT_CUDART} dl rt pthread)
set(LOWBIT_CUDA_FOUND ON)
