# SPDX-License-Identifier: Apache-2.0
# lowbit_numpy's extension module, for each Python of LOWBIT_NUMPY_PYTHON that has pybind11 and
# Python.h.
find_package(Threads REQUIRED)
file(GLOB numpy_sources CONFIGURE_DEPENDS cc/numpy/*.cc)

# Asked of Python itself at each run: find_package would remember the folder of an isolated build
# environment, which is gone at the next one.
function(lowbit_add_numpy python)
  execute_process(
    COMMAND ${python} -c "import sysconfig, pybind11
assert pybind11.version_info >= (2, 12), f'pybind11 is {pybind11.__version__}'
print(sysconfig.get_config_var('EXT_SUFFIX'), sysconfig.get_path('include'),
      pybind11.get_include(), sep=';', end='')"
    OUTPUT_VARIABLE numpy_build RESULT_VARIABLE status ERROR_QUIET)
  set(missing)
  if(NOT status EQUAL 0)
    set(missing "${python} has no pybind11: pip install 'pybind11>=2.12'")
  else()
    list(GET numpy_build 0 suffix)
    list(SUBLIST numpy_build 1 -1 includes)
    list(GET includes 0 python_include)
    if(NOT EXISTS ${python_include}/Python.h)
      set(missing "no ${python_include}/Python.h: apt-get install python3-dev")
    endif()
  endif()
  if(missing)
    if(LOWBIT_NUMPY STREQUAL "ON")
      message(FATAL_ERROR "LOWBIT_NUMPY is ON, but ${missing}")
    endif()
    message(STATUS "lowbit_numpy: not built, ${missing}")
    return()
  endif()

  string(REGEX REPLACE "^\\.|\\.so$" "" tag ${suffix})
  set(target lowbit_numpy_${tag})
  if(TARGET ${target})
    return()
  endif()
  add_library(${target} MODULE ${numpy_sources})
  add_dependencies(lowbit_numpy ${target})
  set_target_properties(${target} PROPERTIES
    PREFIX "" SUFFIX ${suffix} OUTPUT_NAME _kernels LIBRARY_OUTPUT_DIRECTORY ${LOWBIT_NUMPY_DIR})
  target_include_directories(${target} SYSTEM PRIVATE ${includes})
  target_compile_definitions(${target} PRIVATE NDEBUG)
  target_link_libraries(${target} PRIVATE lowbit_cpu Threads::Threads)
  lowbit_export(${target} PyInit_*)
endfunction()

add_custom_target(lowbit_numpy)  # for all Pythons
if(LOWBIT_NUMPY_PYTHON)
  foreach(python IN LISTS LOWBIT_NUMPY_PYTHON)
    lowbit_add_numpy(${python})
  endforeach()
else()
  lowbit_add_numpy(${Python_EXECUTABLE})
endif()
