# CUDA, with PERENNIAL_WITH_CUDA=ON: the compiler, the architectures and the runtime. Without nvcc
# the configuration ends with one line.
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80 90 100 CACHE STRING "CUDA architectures to build for" FORCE)
endif()
if(NOT CMAKE_CUDA_COMPILER)
  find_program(PERENNIAL_NVCC nvcc HINTS ENV CUDACXX ENV CUDA_HOME ENV CUDA_PATH /usr/local/cuda
               PATH_SUFFIXES bin)
  mark_as_advanced(PERENNIAL_NVCC)
  if(NOT PERENNIAL_NVCC)
    message(FATAL_ERROR "PERENNIAL_WITH_CUDA is ON, but nvcc was not found: install the CUDA toolkit 13, or set CMAKE_CUDA_COMPILER.")
  endif()
  set(CMAKE_CUDA_COMPILER "${PERENNIAL_NVCC}")
endif()
enable_language(CUDA)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 13.0)
  message(FATAL_ERROR "nvcc ${CMAKE_CUDA_COMPILER_VERSION} was found in '${CMAKE_CUDA_COMPILER}'; PERENNIAL_WITH_CUDA needs 13.0 or newer.")
endif()
find_package(CUDAToolkit 13.0 REQUIRED)
