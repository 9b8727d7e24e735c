# SPDX-License-Identifier: Apache-2.0
# lowbit_numpy's extension module, for the Python that builds it, where pybind11 and Python.h are.
# Asked of Python itself at each run: find_package would remember the folder of an isolated build
# environment, which is gone at the next one.
execute_process(
  COMMAND ${Python_EXECUTABLE} -c "import sysconfig, pybind11
assert pybind11.version_info >= (2, 12), f'pybind11 is {pybind11.__version__}'
print(sysconfig.get_config_var('EXT_SUFFIX'), sysconfig.get_path('include'),
      pybind11.get_include(), sep=';', end='')"
  OUTPUT_VARIABLE numpy_build RESULT_VARIABLE status ERROR_QUIET)
set(missing)
if(NOT status EQUAL 0)
  set(missing "${Python_EXECUTABLE} has no pybind11: pip install 'pybind11>=2.12'")
else()
  list(GET numpy_build 0 numpy_suffix)
  list(SUBLIST numpy_build 1 -1 numpy_includes)
  list(GET numpy_includes 0 numpy_python)
  if(NOT EXISTS ${numpy_python}/Python.h)
    set(missing "no ${numpy_python}/Python.h: apt-get install python3-dev")
  endif()
endif()
if(missing)
  if(LOWBIT_NUMPY STREQUAL "ON")
    message(FATAL_ERROR "LOWBIT_NUMPY is ON, but ${missing}")
  endif()
  message(STATUS "lowbit_numpy: not built, ${missing}")
  return()
endif()

find_package(Threads REQUIRED)
file(GLOB numpy_sources CONFIGURE_DEPENDS cc/numpy/*.cc)
add_library(lowbit_numpy MODULE ${numpy_sources})
set_target_properties(lowbit_numpy PROPERTIES
  PREFIX "" SUFFIX ${numpy_suffix} OUTPUT_NAME _kernels LIBRARY_OUTPUT_DIRECTORY ${LOWBIT_NUMPY_DIR})
target_include_directories(lowbit_numpy SYSTEM PRIVATE ${numpy_includes})
target_compile_definitions(lowbit_numpy PRIVATE NDEBUG)
target_link_libraries(lowbit_numpy PRIVATE lowbit_cpu Threads::Threads)
lowbit_export(lowbit_numpy PyInit_*)
