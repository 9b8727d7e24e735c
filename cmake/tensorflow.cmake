# SPDX-License-Identifier: Apache-2.0
# lowbit_kernels, the kernels of all devices, and lowbit_ops_<major>_<minor>, the op library for each
# TensorFlow of TENSORFLOW_ROOT.

# One library for all TensorFlows, of which the kernels see nothing: the code for seven GPUs in each
# op library would make a wheel for four of them 18 MB. And where no library of TensorFlow's is
# linked, none can offer its CUDA functions, of another version, for those of ours.
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

file(GLOB tf_sources CONFIGURE_DEPENDS cc/tf/*.cc)
if(NOT LOWBIT_CUDA_FOUND)
  list(REMOVE_ITEM tf_sources ${PROJECT_SOURCE_DIR}/cc/tf/gpu_launch.cc)
endif()

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

  set(ops lowbit_ops_${tf_major}_${tf_minor})
  if(TARGET ${ops})
    message(FATAL_ERROR "TENSORFLOW_ROOT must hold one TensorFlow ${tf_major}.${tf_minor}, got two")
  endif()
  add_library(${ops} MODULE ${tf_sources})
  set_target_properties(${ops} PROPERTIES
    PREFIX "" SUFFIX ".so" OUTPUT_NAME tf${tf_major}_${tf_minor}
    LIBRARY_OUTPUT_DIRECTORY ${LOWBIT_OPS_DIR})
  target_include_directories(${ops} SYSTEM PRIVATE ${tf_include})
  # NDEBUG and Eigen's alignment change inline classes: both as in TensorFlow's own build.
  target_compile_definitions(${ops} PRIVATE
    NDEBUG EIGEN_MAX_ALIGN_BYTES=64 _GLIBCXX_USE_CXX11_ABI=${tf_cxx11_abi})
  target_compile_options(${ops} PRIVATE -ffile-prefix-map=${tf_include}/=)
  target_precompile_headers(${ops} PRIVATE
    <tensorflow/core/framework/op.h>
    <tensorflow/core/framework/op_kernel.h>
    <tensorflow/core/framework/shape_inference.h>)
  target_link_libraries(${ops} PRIVATE lowbit_kernels ${tf_library})
  target_link_options(${ops} PRIVATE -Wl,--no-undefined -Wl,-rpath,$ORIGIN)
  lowbit_export(${ops} lowbit_*)
endfunction()

if(TENSORFLOW_ROOT)
  foreach(root IN LISTS TENSORFLOW_ROOT)
    lowbit_add_ops(${root})
  endforeach()
else()
  lowbit_add_ops("")
endif()
