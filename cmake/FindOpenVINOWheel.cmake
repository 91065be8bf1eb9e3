# Finds OpenVINO in its Python wheel, which carries headers, libraries and a CMake package, unless
# OpenVINO_DIR names another. Defines what find_package(OpenVINO) defines.
#
# The version must be the one that pyproject.toml requires at run time: the wheel's libraries keep
# no binary interface from one release to the next.

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
    message(FATAL_ERROR "pyproject.toml requires ${pin}, but OpenVINO ${OpenVINO_VERSION} is what "
      "${OpenVINO_DIR} holds; install the one or change the other")
  endif()
endforeach()
