# xxHash, as the imported target perennial::xxhash (the distribution ships no CMake package of it).
if(NOT TARGET perennial::xxhash)
  find_path(PERENNIAL_XXHASH_INCLUDE xxhash.h REQUIRED)
  find_library(PERENNIAL_XXHASH_LIBRARY xxhash REQUIRED)
  add_library(perennial::xxhash UNKNOWN IMPORTED)
  set_target_properties(perennial::xxhash PROPERTIES
    IMPORTED_LOCATION "${PERENNIAL_XXHASH_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${PERENNIAL_XXHASH_INCLUDE}")
endif()
