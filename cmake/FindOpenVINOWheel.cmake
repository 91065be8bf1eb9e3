# Finds OpenVINO in its Python wheel, which contains headers, libraries and a CMake package, unless
# OpenVINO_DIR is set. Defines the same variables and targets as find_package(OpenVINO).
#
# The version must be the one that pyproject.toml requires at run time, because the ABI of the
# wheel's libraries changes between releases.

if(NOT OpenVINO_DIR)
  execute_process(
    COMMAND "${Python_EXECUTABLE}" -c
      "import importlib.util as u; print(u.find_spec('openvino').submodule_search_locations[0])"
    OUTPUT_VARIABLE openvino_package OUTPUT_STRIP_TRAILING_WHITESPACE
    RESULT_VARIABLE openvino_missing ERROR_QUIET)
  if(NOT openvino_missing)
    set(OpenVINO_DIR "${openvino_package}/cmake" CACHE PATH "The folder of OpenVINOConfig.cmake")
  endif()
endif()
find_package(OpenVINO CONFIG QUIET COMPONENTS Runtime)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(OpenVINOWheel
  REQUIRED_VARS OpenVINO_DIR OpenVINO_FOUND
  REASON_FAILURE_MESSAGE "install it for ${Python_EXECUTABLE}: pip install openvino")

file(READ "${CMAKE_CURRENT_SOURCE_DIR}/pyproject.toml" pyproject)
string(REGEX MATCHALL "openvino==[0-9.]+" openvino_pins "${pyproject}")
foreach(pin IN LISTS openvino_pins)
  if(NOT pin STREQUAL "openvino==${OpenVINO_VERSION}")
    message(FATAL_ERROR "pyproject.toml requires ${pin}, but ${OpenVINO_DIR} has OpenVINO "
      "${OpenVINO_VERSION}; install the required version or change pyproject.toml")
  endif()
endforeach()
