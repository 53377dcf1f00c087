# xxHash, as the imported target perennial::xxhash (the distribution ships no CMake package of it).
if(NOT TARGET perennial::xxhash)
  find_path(PERENNIAL_XXHASH_INCLUDE xxhash.h REQUIRED)
  find_library(PERENNIAL_XXHASH_LIBRARY xxhash REQUIRED)
  add_library(perennial::xxhash UNKNOWN IMPORTED)
  set_target_properties(perennial::xxhash PROPERTIES
    IMPORTED_LOCATION "${PERENNIAL_XXHASH_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${PERENNIAL_XXHASH_INCLUDE}")
  # The library's own functions are compiled for the oldest processor; where it was built with the
  # dispatching ones, those use AVX2 or AVX-512 if the processor has them, with the same digests.
  include(CheckCXXSourceCompiles)
  set(CMAKE_REQUIRED_LIBRARIES perennial::xxhash)
  check_cxx_source_compiles("#include <xxh_x86dispatch.h>
    int main() { return static_cast<int>(XXH3_64bits(\"\", 0) & 1); }" PERENNIAL_XXHASH_DISPATCH)
  unset(CMAKE_REQUIRED_LIBRARIES)
  if(PERENNIAL_XXHASH_DISPATCH)
    set_property(TARGET perennial::xxhash PROPERTY
      INTERFACE_COMPILE_DEFINITIONS PERENNIAL_XXHASH_DISPATCH)
  endif()
endif()
