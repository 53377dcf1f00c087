# LibTorch's CUDA libraries, as the imported target perennial::torch_cuda; after PerennialTorch.cmake,
# whose LibTorch they belong to. Installed beside perennialConfig.cmake.
#
# Where the program runs, the wheel's CUDA dependencies (cuBLAS, cuDNN, NCCL, ...) must be beside it:
# its own run path finds them. They are not needed for linking.
if(TARGET perennial::torch_cuda)
  return()
endif()
if(EXISTS "${PERENNIAL_TORCH_USED}/lib/libtorch_cuda.so")
  foreach(_perennial_library torch_cuda c10_cuda)
    add_library(perennial::lib${_perennial_library} SHARED IMPORTED)
    set_target_properties(perennial::lib${_perennial_library} PROPERTIES
      IMPORTED_LOCATION "${PERENNIAL_TORCH_USED}/lib/lib${_perennial_library}.so"
      IMPORTED_SONAME "lib${_perennial_library}.so")
  endforeach()
  set(_perennial_libraries perennial::libtorch_cuda perennial::libc10_cuda)
elseif(TARGET torch_cuda AND TARGET c10_cuda)
  set(_perennial_libraries torch_cuda c10_cuda)
else()
  message(FATAL_ERROR "PERENNIAL_WITH_CUDA is ON, but LibTorch in '${PERENNIAL_TORCH_USED}' is a CPU build: libtorch_cuda.so is missing.")
endif()
add_library(perennial::torch_cuda INTERFACE IMPORTED)
# --no-as-needed: libtorch_cuda registers its operators when it is loaded; no symbol asks for it.
target_link_options(perennial::torch_cuda INTERFACE -Wl,--no-as-needed)
target_link_libraries(perennial::torch_cuda INTERFACE ${_perennial_libraries} perennial::torch)
