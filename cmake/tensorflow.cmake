# SPDX-License-Identifier: Apache-2.0
# lowbit_kernels, the kernels of all devices; and for each TensorFlow of TENSORFLOW_ROOT
# lowbit_ops_<major>_<minor>, its op library, and lowbit_xla_<major>_<minor>, the XLA kernels.

# One library for all TensorFlows, of which the kernels see nothing: else a wheel would hold the code
# for seven GPUs once for each. And where no library of TensorFlow's is linked, none can offer its
# CUDA functions, of another version, for those of ours.
add_library(lowbit_kernels SHARED)
set_target_properties(lowbit_kernels PROPERTIES
  LINKER_LANGUAGE CXX LIBRARY_OUTPUT_DIRECTORY ${LOWBIT_OPS_DIR})
target_link_libraries(lowbit_kernels PRIVATE lowbit_cpu)
if(LOWBIT_CUDA_FOUND)
  target_link_libraries(lowbit_kernels PRIVATE lowbit_cuda)
  target_include_directories(lowbit_kernels SYSTEM INTERFACE ${LOWBIT_CUDA_INCLUDE})
  target_compile_definitions(lowbit_kernels INTERFACE LOWBIT_HAS_CUDA)
endif()
target_link_options(lowbit_kernels PRIVATE -Wl,--no-undefined)
lowbit_export(lowbit_kernels _ZN6lowbit*)

# The sums of all libraries in the folder, by which the doctor knows a damaged one.
function(lowbit_sum target)
  add_custom_command(TARGET ${target} POST_BUILD
    COMMAND ${CMAKE_COMMAND} -DFOLDER=${LOWBIT_OPS_DIR} -DLOCK=${PROJECT_BINARY_DIR}/sums.lock
            -P ${PROJECT_SOURCE_DIR}/cmake/sums.cmake
    VERBATIM)
endfunction()
lowbit_sum(lowbit_kernels)

file(GLOB tf_sources CONFIGURE_DEPENDS cc/tf/*.cc)
if(NOT LOWBIT_CUDA_FOUND)
  list(REMOVE_ITEM tf_sources ${PROJECT_SOURCE_DIR}/cc/tf/gpu_launch.cc)
endif()

add_custom_target(lowbit_ops)  # for all TensorFlows

# A library that TensorFlow loads, compiled as TensorFlow was: NDEBUG and Eigen's alignment change
# inline classes.
function(lowbit_add_module target name)
  add_library(${target} MODULE ${ARGN})
  set_target_properties(${target} PROPERTIES
    PREFIX "" SUFFIX ".so" OUTPUT_NAME ${name} LIBRARY_OUTPUT_DIRECTORY ${LOWBIT_OPS_DIR})
  target_include_directories(${target} SYSTEM PRIVATE ${tf_include})
  target_compile_definitions(${target} PRIVATE
    NDEBUG EIGEN_MAX_ALIGN_BYTES=64 _GLIBCXX_USE_CXX11_ABI=${tf_cxx11_abi})
  target_compile_options(${target} PRIVATE -ffile-prefix-map=${tf_include}/=)
  target_link_options(${target} PRIVATE -Wl,--no-undefined)
  lowbit_sum(${target})
endfunction()

# The XLA kernels, where TensorFlow has what they need. They need nothing of lowbit_kernels.
function(lowbit_add_xla target name)
  cmake_path(GET tf_library PARENT_PATH root)
  set(tf_cc_library ${root}/libtensorflow_cc.so.2)
  foreach(needed IN ITEMS
      ${tf_cc_library} ${tf_include}/tensorflow/compiler/tf2xla/xla_op_kernel.h)
    if(NOT EXISTS ${needed})
      if(LOWBIT_XLA STREQUAL "ON")
        message(FATAL_ERROR "LOWBIT_XLA is ON, but there is no ${needed}")
      endif()
      message(STATUS "XLA kernels: not built, there is no ${needed}")
      return()
    endif()
  endforeach()
  lowbit_add_module(${target} ${name} cc/tf_xla/kernels.cc cc/tf/arguments.cc)
  target_include_directories(${target} SYSTEM PRIVATE
    ${tf_include}/external/highwayhash ${tf_include}/external/farmhash_archive/src)
  # The constants of a program are computed here, with the bits of the CPU's.
  target_compile_options(${target} PRIVATE
    -ffp-contract=off -idirafter${PROJECT_SOURCE_DIR}/cc/tf_xla/shims)
  target_link_libraries(${target} PRIVATE ${tf_cc_library} ${tf_library})
  set_target_properties(${target} PROPERTIES JOB_POOL_COMPILE compile_xla)
  lowbit_export(${target} lowbit_*)
endfunction()

function(lowbit_add_ops root)
  execute_process(
    COMMAND ${Python_EXECUTABLE} ${PROJECT_SOURCE_DIR}/cmake/find_tensorflow.py ${root}
    OUTPUT_VARIABLE tensorflow RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "No TensorFlow to build for: see above")
  endif()
  foreach(key version major minor include library cxx11_abi)
    string(JSON tf_${key} GET "${tensorflow}" ${key})
  endforeach()
  message(STATUS "TensorFlow ${tf_version}: ${tf_include}")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${tf_library})

  set(name tf${tf_major}_${tf_minor})
  set(ops lowbit_ops_${tf_major}_${tf_minor})
  if(TARGET ${ops})
    message(FATAL_ERROR "TENSORFLOW_ROOT must hold one TensorFlow ${tf_major}.${tf_minor}, got two")
  endif()
  lowbit_add_module(${ops} ${name} ${tf_sources})
  add_dependencies(lowbit_ops ${ops})
  # To read TensorFlow's headers takes 15 s, so once: alone, or for good.
  if(LOWBIT_QUICK)
    set_target_properties(${ops} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 0)
  else()
    target_precompile_headers(${ops} PRIVATE
      <tensorflow/core/framework/op.h>
      <tensorflow/core/framework/op_kernel.h>
      <tensorflow/core/framework/shape_inference.h>)
  endif()
  target_link_libraries(${ops} PRIVATE lowbit_kernels ${tf_library})
  set_target_properties(${ops} PROPERTIES INSTALL_RPATH "$ORIGIN")  # lowbit_kernels is there
  lowbit_export(${ops} lowbit_*)
  if(NOT LOWBIT_XLA STREQUAL "OFF")
    lowbit_add_xla(lowbit_xla_${tf_major}_${tf_minor} ${name}_xla)
  endif()
endfunction()

if(TENSORFLOW_ROOT)
  foreach(root IN LISTS TENSORFLOW_ROOT)
    lowbit_add_ops(${root})
  endforeach()
else()
  lowbit_add_ops("")
endif()
