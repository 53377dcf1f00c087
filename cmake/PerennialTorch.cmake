# LibTorch, as the imported target perennial::torch. Installed beside perennialConfig.cmake, so it
# serves the build and those who use the installed libraries.
#
# Looked for in this order:
#   1. PERENNIAL_TORCH_ROOT, the folder of an unpacked LibTorch (it holds include/ and lib/);
#   2. a LibTorch pointed at with Torch_DIR, Torch_ROOT or CMAKE_PREFIX_PATH (variables of CMake or
#      of the environment);
#   3. the one scripts/setup put into .deps; once installed, the one the libraries were built with
#      (PERENNIAL_TORCH_DEFAULT, set by perennialConfig.cmake).
# An unpacked LibTorch, a wheel of a CUDA build too, is used as a CPU library by targets of our own:
# find_package(Torch) of a CUDA build would demand the whole CUDA toolkit, while libtorch_cpu and
# libc10 are all the CPU code needs. A LibTorch laid out otherwise (a distribution's) is left to its
# find_package.
#
# Sets PERENNIAL_TORCH_FOUND. On failure the build stops; inside find_package(perennial) the package
# is reported as not found, and why.
if(TARGET perennial::torch)
  set(PERENNIAL_TORCH_FOUND TRUE)
  return()
endif()
set(PERENNIAL_TORCH_FOUND FALSE)
set(PERENNIAL_TORCH_ROOT "" CACHE PATH
    "Folder of an unpacked LibTorch (holds include/ and lib/); empty: see cmake/PerennialTorch.cmake")

macro(_perennial_torch_failed message)
  if(CMAKE_FIND_PACKAGE_NAME)
    set(${CMAKE_FIND_PACKAGE_NAME}_FOUND FALSE)
    set(${CMAKE_FIND_PACKAGE_NAME}_NOT_FOUND_MESSAGE "${message}")
  else()
    message(FATAL_ERROR "${message}")
  endif()
  return()
endmacro()

# _perennial_is_unpacked(FOLDER VARIABLE): whether the folder is laid out as wheel and zip are.
function(_perennial_is_unpacked folder variable)
  set(${variable} FALSE PARENT_SCOPE)
  if(EXISTS "${folder}/lib/libtorch_cpu.so" AND EXISTS "${folder}/lib/libc10.so"
     AND EXISTS "${folder}/include/torch/csrc/api/include/torch/types.h")
    set(${variable} TRUE PARENT_SCOPE)
  endif()
endfunction()

# 1. to 3.: leaves _perennial_root, an unpacked LibTorch, or else _perennial_config, the folder of a
# TorchConfig.cmake.
set(_perennial_root "${PERENNIAL_TORCH_ROOT}")
set(_perennial_config "")
if(_perennial_root)
  _perennial_is_unpacked("${_perennial_root}" _perennial_found)
  if(NOT _perennial_found)
    _perennial_torch_failed("PERENNIAL_TORCH_ROOT is '${_perennial_root}', where there is no \
LibTorch: lib/libtorch_cpu.so, lib/libc10.so or the headers are missing.")
  endif()
elseif(Torch_DIR AND NOT EXISTS "${Torch_DIR}/TorchConfig.cmake")
  _perennial_torch_failed("Torch_DIR is '${Torch_DIR}', where there is no TorchConfig.cmake.")
else()
  set(_perennial_default "${PERENNIAL_TORCH_DEFAULT}")
  if(NOT _perennial_default)
    file(GLOB _perennial_default
         "${CMAKE_CURRENT_LIST_DIR}/../.deps/torch-venv/lib/python3*/site-packages/torch")
  endif()
  string(REPLACE ":" ";" _perennial_prefixes "$ENV{CMAKE_PREFIX_PATH}")
  foreach(_perennial_prefix IN ITEMS "${Torch_DIR}" "$ENV{Torch_DIR}" "${Torch_ROOT}"
          "$ENV{Torch_ROOT}" ${CMAKE_PREFIX_PATH} ${_perennial_prefixes} ${_perennial_default})
    foreach(_perennial_folder IN ITEMS "${_perennial_prefix}" "${_perennial_prefix}/share/cmake/Torch")
      if(_perennial_prefix AND NOT _perennial_config AND EXISTS "${_perennial_folder}/TorchConfig.cmake")
        set(_perennial_config "${_perennial_folder}")
      endif()
    endforeach()
  endforeach()
  if(NOT _perennial_config)
    _perennial_torch_failed("LibTorch was not found. Run ./scripts/setup in the source tree, or \
point Torch_DIR or CMAKE_PREFIX_PATH at a LibTorch 2.11.")
  endif()
  get_filename_component(_perennial_root "${_perennial_config}/../../.." ABSOLUTE)
  _perennial_is_unpacked("${_perennial_root}" _perennial_found)
  if(NOT _perennial_found)
    set(_perennial_root "")
  endif()
endif()

if(_perennial_root)
  file(STRINGS "${_perennial_root}/include/torch/headeronly/version.h" _perennial_version
       REGEX "#define TORCH_VERSION_(MAJOR|MINOR|PATCH)")
  string(REGEX REPLACE "[^0-9;]" "" _perennial_version "${_perennial_version}")
  list(JOIN _perennial_version "." _perennial_version)
  if(NOT _perennial_version VERSION_GREATER_EQUAL 2.11)
    _perennial_torch_failed("LibTorch in '${_perennial_root}' is ${_perennial_version}; 2.11 or newer is needed.")
  endif()
  foreach(_perennial_library torch_cpu c10)
    add_library(perennial::${_perennial_library} SHARED IMPORTED)
    set_target_properties(perennial::${_perennial_library} PROPERTIES
      IMPORTED_LOCATION "${_perennial_root}/lib/lib${_perennial_library}.so"
      IMPORTED_SONAME "lib${_perennial_library}.so")
  endforeach()
  add_library(perennial::torch INTERFACE IMPORTED)
  target_link_libraries(perennial::torch INTERFACE perennial::torch_cpu perennial::c10)
  target_include_directories(perennial::torch SYSTEM INTERFACE
    "${_perennial_root}/include" "${_perennial_root}/include/torch/csrc/api/include")
  # A CUDA build's libtorch_cpu loads libcudart and libcupti. The loader finds them through the
  # library's own run path; a linker that checks what shared libraries need may not.
  target_link_options(perennial::torch INTERFACE -Wl,--allow-shlib-undefined)
else()
  find_package(Torch 2.11 CONFIG PATHS "${_perennial_config}" NO_DEFAULT_PATH)
  if(NOT Torch_FOUND)
    _perennial_torch_failed("LibTorch 2.11 was not found in '${_perennial_config}'.")
  endif()
  set(_perennial_root "${_perennial_config}")
  set(_perennial_version "${Torch_VERSION}")
  add_library(perennial::torch INTERFACE IMPORTED)
  target_link_libraries(perennial::torch INTERFACE torch_cpu c10)
  target_include_directories(perennial::torch SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})
endif()
if(NOT ${CMAKE_FIND_PACKAGE_NAME}_FIND_QUIETLY)
  message(STATUS "LibTorch ${_perennial_version} from ${_perennial_root}")
endif()
# What an installed package remembers (see PerennialInstall).
set(PERENNIAL_TORCH_USED "${_perennial_root}")
set(PERENNIAL_TORCH_FOUND TRUE)
