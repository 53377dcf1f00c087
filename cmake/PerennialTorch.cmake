# LibTorch, as the imported target perennial::torch.
#
# Looked for in this order:
#   1. a LibTorch the user points at, with Torch_DIR or CMAKE_PREFIX_PATH (find_package(Torch));
#   2. the wheel in PERENNIAL_TORCH_ROOT, by default the one scripts/setup puts into .deps.
# A wheel of a CUDA build is used as a CPU library: find_package(Torch) of it would demand the whole
# CUDA toolkit, while libtorch_cpu and libc10 are all the CPU code needs.
if(TARGET perennial::torch)
  return()
endif()

file(GLOB _perennial_wheels "${CMAKE_CURRENT_LIST_DIR}/../.deps/torch-venv/lib/python3*/site-packages/torch")
set(PERENNIAL_TORCH_ROOT "${_perennial_wheels}" CACHE PATH
    "Folder 'torch' of an unpacked LibTorch wheel (holds include/ and lib/)")

set(_perennial_user_torch FALSE)
if(Torch_DIR)
  set(_perennial_user_torch TRUE)
else()
  foreach(_prefix IN LISTS CMAKE_PREFIX_PATH)
    if(EXISTS "${_prefix}/share/cmake/Torch/TorchConfig.cmake" OR EXISTS "${_prefix}/TorchConfig.cmake")
      set(_perennial_user_torch TRUE)
    endif()
  endforeach()
endif()

add_library(perennial::torch INTERFACE IMPORTED)
if(_perennial_user_torch)
  find_package(Torch 2.11 REQUIRED)
  message(STATUS "LibTorch ${Torch_VERSION} from ${TORCH_INSTALL_PREFIX}")
  target_link_libraries(perennial::torch INTERFACE torch_cpu c10)
  target_include_directories(perennial::torch SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})
else()
  if(NOT EXISTS "${PERENNIAL_TORCH_ROOT}/lib/libtorch_cpu.so")
    message(FATAL_ERROR "LibTorch was not found (PERENNIAL_TORCH_ROOT is '${PERENNIAL_TORCH_ROOT}'). "
      "Run ./scripts/setup, or point Torch_DIR or CMAKE_PREFIX_PATH at a LibTorch 2.11.")
  endif()
  file(STRINGS "${PERENNIAL_TORCH_ROOT}/include/torch/headeronly/version.h" _version_lines
       REGEX "#define TORCH_VERSION_(MAJOR|MINOR|PATCH)")
  string(REGEX REPLACE "[^0-9;]" "" _version "${_version_lines}")
  list(JOIN _version "." _version)
  if(NOT _version VERSION_GREATER_EQUAL 2.11)
    message(FATAL_ERROR "LibTorch at ${PERENNIAL_TORCH_ROOT} is ${_version}; 2.11.0 is needed.")
  endif()
  message(STATUS "LibTorch ${_version} from ${PERENNIAL_TORCH_ROOT}")
  foreach(_lib torch_cpu c10)
    if(NOT TARGET perennial::${_lib})
      add_library(perennial::${_lib} SHARED IMPORTED)
      set_target_properties(perennial::${_lib} PROPERTIES
        IMPORTED_LOCATION "${PERENNIAL_TORCH_ROOT}/lib/lib${_lib}.so"
        IMPORTED_NO_SONAME TRUE)
    endif()
  endforeach()
  target_link_libraries(perennial::torch INTERFACE perennial::torch_cpu perennial::c10)
  target_include_directories(perennial::torch SYSTEM INTERFACE
    "${PERENNIAL_TORCH_ROOT}/include" "${PERENNIAL_TORCH_ROOT}/include/torch/csrc/api/include")
  # libtorch_cpu loads libcudart and libcupti, found through its own run path, which a linker that
  # checks shared libraries' needs does not follow.
  target_link_options(perennial::torch INTERFACE -Wl,--allow-shlib-undefined
                      -Wl,-rpath,${PERENNIAL_TORCH_ROOT}/lib)
endif()
