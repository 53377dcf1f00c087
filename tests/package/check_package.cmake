# cmake -D BUILD=... -P check_package.cmake: install, then configure, build and run the foreign project.
cmake_minimum_required(VERSION 3.25)

function(run)
  execute_process(COMMAND ${ARGN} COMMAND_ECHO STDOUT COMMAND_ERROR_IS_FATAL ANY)
endfunction()

# fenced_block(TEXT LANGUAGE BLOCK REST): what stands in the first block of that language, and what
# follows it.
function(fenced_block text language block rest)
  string(FIND "${text}" "```${language}\n" begin)
  if(begin EQUAL -1)
    message(FATAL_ERROR "${README} lacks a ```${language} block where one is expected")
  endif()
  string(LENGTH "```${language}\n" opening)
  math(EXPR begin "${begin} + ${opening}")
  string(SUBSTRING "${text}" ${begin} -1 text)
  string(FIND "${text}" "\n```" end)
  string(SUBSTRING "${text}" ${end} -1 after)
  string(SUBSTRING "${text}" 0 ${end} text)
  set(${block} "${text}\n" PARENT_SCOPE)
  set(${rest} "${after}" PARENT_SCOPE)
endfunction()

file(REMOVE_RECURSE "${WORK}")
set(prefix "${WORK}/prefix")
run(${CMAKE_COMMAND} --install "${BUILD}" --config "${CONFIG}" --prefix "${prefix}")

file(READ "${README}" readme)
fenced_block("${readme}" cpp example readme)
fenced_block("${readme}" text expected readme)
if(readme MATCHES "\n```cpp\n")
  message(FATAL_ERROR "${README} has more than one ```cpp block; this test compiles one")
endif()
file(COPY "${FOREIGN}/" DESTINATION "${WORK}/foreign")
file(WRITE "${WORK}/foreign/example.cc" "${example}")

set(flags "")
if(SANITIZE STREQUAL "address")
  set(flags "-fsanitize=address,undefined")
elseif(SANITIZE)
  set(flags "-fsanitize=${SANITIZE}")
endif()
# The environment of whoever runs the tests must not help to find the package.
run(${CMAKE_COMMAND} -E env --unset=CMAKE_PREFIX_PATH --unset=perennial_DIR
    ${CMAKE_COMMAND} -S "${WORK}/foreign" -B "${WORK}/build" -G "${GENERATOR}"
    "-DCMAKE_PREFIX_PATH=${prefix}" "-DCMAKE_BUILD_TYPE=${CONFIG}" "-DCMAKE_CXX_COMPILER=${COMPILER}"
    "-DCMAKE_CXX_FLAGS=${flags}")
run(${CMAKE_COMMAND} --build "${WORK}/build" --config "${CONFIG}" -j 2)

run("${WORK}/build/modules")
execute_process(COMMAND "${WORK}/build/example" OUTPUT_VARIABLE printed COMMAND_ERROR_IS_FATAL ANY)
if(NOT printed STREQUAL expected)
  message(FATAL_ERROR "The example of README.md printed\n${printed}where README.md says\n${expected}")
endif()
run("${prefix}/bin/perennial" --version)
