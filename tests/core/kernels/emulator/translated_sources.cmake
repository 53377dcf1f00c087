# perennial_translated_sources(VARIABLE x.cu...): C++ sources for the emulated device, in this folder's
# part of the build; their targets link perennial_emulated_kernels.
set(_perennial_emulator ${CMAKE_CURRENT_LIST_DIR})
function(perennial_translated_sources variable)
  set(translated)
  foreach(source IN LISTS ARGN)
    get_filename_component(name ${source} NAME_WE)
    set(target ${CMAKE_CURRENT_BINARY_DIR}/${name}.cc)
    add_custom_command(OUTPUT ${target}
      COMMAND ${CMAKE_COMMAND} -DSOURCE=${source} -DTARGET=${target}
              -P ${_perennial_emulator}/translate.cmake
      DEPENDS ${source} ${_perennial_emulator}/translate.cmake VERBATIM)
    list(APPEND translated ${target})
  endforeach()
  # As nvcc: its macro, its header included first, no fusing of multiply and add. float4 is read where
  # floats lie, as on a device.
  set_source_files_properties(${translated} PROPERTIES COMPILE_OPTIONS
    "-D__CUDACC__;-include;cuda_runtime.h;-ffp-contract=off;-fno-strict-aliasing;-Wno-unknown-pragmas")
  set(${variable} ${translated} PARENT_SCOPE)
endfunction()
