# cmake -DSOURCE=x.cu -DTARGET=x.cc -P translate.cmake: the two things of CUDA's language that macros
# cannot give a C++ compiler, launches and arrays of dynamic shared memory. Lines keep their numbers.
file(READ "${SOURCE}" text)
foreach(kernel "([A-Za-z_0-9]+<[^<>();{}]*>)" "([A-Za-z_0-9]+)")
  string(REGEX REPLACE "${kernel}<<<([^;{}]*)>>>[(]" "::emulator::Launch(\\2).of(\\1)(" text "${text}")
endforeach()
string(REGEX REPLACE "extern __shared__ __align__[(]16[)] ([a-z ]+) ([a-z]+)\\[\\];"
  "\\1* const \\2 = ::emulator::dynamic_shared<\\1>();" text "${text}")
if(text MATCHES "<<<[^>]" OR text MATCHES "extern __shared__")
  message(FATAL_ERROR "${SOURCE} has a launch or dynamic shared memory that translate.cmake does not understand")
endif()
file(WRITE "${TARGET}" "#line 1 \"${SOURCE}\"\n${text}")
