# Settings every target of the project shares, and the two functions that declare targets.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/bin")

if(PERENNIAL_SANITIZE STREQUAL "address")
  add_compile_options(-fsanitize=address,undefined -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
elseif(PERENNIAL_SANITIZE STREQUAL "thread")
  # Boost.Asio's fences are seen through its mutexes; GCC only warns that it cannot see them itself.
  add_compile_options(-fsanitize=thread $<$<CXX_COMPILER_ID:GNU>:-Wno-tsan>)
  add_link_options(-fsanitize=thread)
elseif(NOT PERENNIAL_SANITIZE STREQUAL "")
  message(FATAL_ERROR "PERENNIAL_SANITIZE is '${PERENNIAL_SANITIZE}'; it may be empty, address or thread")
endif()

# perennial_settings(TARGET): warnings and floating-point rules of our own code, and, where
# CMAKE_UNITY_BUILD is set, how many sources are compiled as one: most of a source's time goes into
# the headers of LibTorch, and 24 sources with them take less than 2.5 GB.
# -ffp-contract=off: a multiply and an add are fused only where the source says so (std::fma,
# Highway's MulAdd), so that the bits do not depend on the compiler's choice.
# -Wno-restrict: GCC 12 sees an overlap where std::string's own operator+ is inlined (GCC bug 105651).
function(perennial_settings target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -ffp-contract=off
    $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict> $<$<BOOL:${PERENNIAL_WARNINGS_AS_ERRORS}>:-Werror>)
  set_target_properties(${target} PROPERTIES UNITY_BUILD_BATCH_SIZE 24)
endfunction()

# perennial_library(NAME DIR SOURCES... ): static library perennial_NAME, alias perennial::NAME,
# public headers under DIR/include, private ones under DIR/src.
function(perennial_library name)
  add_library(perennial_${name} STATIC ${ARGN})
  add_library(perennial::${name} ALIAS perennial_${name})
  set_target_properties(perennial_${name} PROPERTIES EXPORT_NAME ${name})
  target_include_directories(perennial_${name}
    PUBLIC $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/include>
           $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>
    PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/src)
  target_compile_features(perennial_${name} PUBLIC cxx_std_20)
  perennial_settings(perennial_${name})
endfunction()
