# Finds the headers of TensorRT's flavours, whose C++ interfaces differ: TensorRT 10, TensorRT 11
# and TensorRT for RTX 1. Any number of them may be installed. Only headers are searched for,
# because the libraries are opened at run time.
#
# Searches TensorRT_ROOT and TensorRT_RTX_ROOT (variables or environment; lists of folders), the
# system's include folders and /opt/tensorrt*. NvInferVersion.h identifies the flavour. The headers
# need CUDA's, which are searched for in CUDAToolkit_ROOT, in the toolkit's default location and in
# the wheel nvidia-cuda-runtime.
#
# Defines, for each FLAVOUR of 10, 11 and rtx:
#   TensorRT_<FLAVOUR>_VERSION       empty if no headers were found
#   TensorRT_<FLAVOUR>_INCLUDE_DIR
#   TensorRT::<FLAVOUR>              a target with the headers of TensorRT and CUDA
#   TensorRT_<FLAVOUR>_MISSING       if none were found, the reason and what to do

set(TensorRT_FLAVOURS 10 11 rtx)

# Returns the flavour and version of the headers in a folder, empty if there are none.
function(tensorrt_identify folder flavour version)
  set(${flavour} "" PARENT_SCOPE)
  if(NOT EXISTS "${folder}/NvInfer.h" OR NOT EXISTS "${folder}/NvInferVersion.h")
    return()
  endif()
  file(READ "${folder}/NvInferVersion.h" header)
  foreach(part MAJOR MINOR PATCH)
    # Written as TRT_MAJOR_RTX, TRT_MAJOR_ENTERPRISE or, in older releases, NV_TENSORRT_MAJOR.
    string(REGEX MATCH "#define (TRT_${part}_RTX|TRT_${part}_ENTERPRISE|NV_TENSORRT_${part}) ([0-9]+)"
      _ "${header}")
    set(${part} "${CMAKE_MATCH_2}")
  endforeach()
  if(header MATCHES "TRT_MAJOR_RTX")
    set(${flavour} rtx PARENT_SCOPE)
  else()
    set(${flavour} ${MAJOR} PARENT_SCOPE)
  endif()
  set(${version} "${MAJOR}.${MINOR}.${PATCH}" PARENT_SCOPE)
endfunction()

file(GLOB tensorrt_usual_places LIST_DIRECTORIES TRUE
  "/opt/tensorrt*" "/opt/TensorRT*" "/usr/local/tensorrt*" "/usr/local/TensorRT*")
set(tensorrt_folders)
foreach(place IN LISTS TensorRT_RTX_ROOT TensorRT_ROOT CMAKE_PREFIX_PATH CMAKE_SYSTEM_PREFIX_PATH
    tensorrt_usual_places)
  list(APPEND tensorrt_folders
    "${place}" "${place}/include" "${place}/include/${CMAKE_LIBRARY_ARCHITECTURE}")
endforeach()
foreach(variable TensorRT_ROOT TensorRT_RTX_ROOT)
  if(DEFINED ENV{${variable}})
    cmake_path(CONVERT "$ENV{${variable}}" TO_CMAKE_PATH_LIST places)
    foreach(place IN LISTS places)
      list(PREPEND tensorrt_folders "${place}" "${place}/include")
    endforeach()
  endif()
endforeach()

# The nvidia-cuda-runtime wheels of CUDA 12 and 13 have different layouts.
execute_process(
  COMMAND "${Python_EXECUTABLE}" -c [[
import importlib.util, pathlib
spec = importlib.util.find_spec("nvidia")
for folder in spec.submodule_search_locations if spec else ():
    for header in pathlib.Path(folder).glob("*/include/cuda_runtime_api.h"):
        print(header.parent, end=";")
]]
  OUTPUT_VARIABLE cuda_wheels ERROR_QUIET)
find_path(CUDA_INCLUDE_DIR cuda_runtime_api.h
  HINTS ${CUDAToolkit_ROOT} $ENV{CUDAToolkit_ROOT} $ENV{CUDA_PATH} /usr/local/cuda ${cuda_wheels}
  PATH_SUFFIXES include
  DOC "The include folder of CUDA")

foreach(flavour IN LISTS TensorRT_FLAVOURS)
  set(TensorRT_${flavour}_VERSION "")
endforeach()
foreach(folder IN LISTS tensorrt_folders)
  tensorrt_identify("${folder}" flavour version)
  if(flavour IN_LIST TensorRT_FLAVOURS AND NOT TensorRT_${flavour}_VERSION)
    set(TensorRT_${flavour}_VERSION "${version}")
    set(TensorRT_${flavour}_INCLUDE_DIR "${folder}")
  endif()
endforeach()

# The oldest headers that the lowering compiles with.
set(TensorRT_10_MINIMUM 10.14)
set(TensorRT_11_MINIMUM 11.0)
set(TensorRT_rtx_MINIMUM 1.6)
foreach(flavour IN LISTS TensorRT_FLAVOURS)
  if(flavour STREQUAL rtx)
    set(root TensorRT_RTX_ROOT)
  else()
    set(root TensorRT_ROOT)
  endif()
  if(NOT TensorRT_${flavour}_VERSION)
    set(TensorRT_${flavour}_MISSING "no headers found; set ${root} to the folder that has them")
  elseif(TensorRT_${flavour}_VERSION VERSION_LESS TensorRT_${flavour}_MINIMUM)
    set(TensorRT_${flavour}_MISSING
      "the headers in ${TensorRT_${flavour}_INCLUDE_DIR} are version \
${TensorRT_${flavour}_VERSION}, but ${TensorRT_${flavour}_MINIMUM} or later is required; \
set ${root} to newer ones")
    set(TensorRT_${flavour}_VERSION "")
  elseif(NOT CUDA_INCLUDE_DIR)
    set(TensorRT_${flavour}_MISSING
      "CUDA's headers were not found; pip install nvidia-cuda-runtime or set CUDAToolkit_ROOT")
    set(TensorRT_${flavour}_VERSION "")
  else()
    if(NOT TARGET TensorRT::${flavour})
      add_library(TensorRT::${flavour} INTERFACE IMPORTED)
      target_include_directories(TensorRT::${flavour} SYSTEM INTERFACE
        "${TensorRT_${flavour}_INCLUDE_DIR}" "${CUDA_INCLUDE_DIR}")
    endif()
    set(TensorRT_${flavour}_FOUND TRUE)
  endif()
endforeach()
