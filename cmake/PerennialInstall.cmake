# Installs the libraries, the public headers of all modules, the program, and the CMake package.
include(CMakePackageConfigHelpers)

set(_perennial_package_folder "${CMAKE_INSTALL_LIBDIR}/cmake/perennial")

install(TARGETS perennial_storage perennial_kernels perennial_core perennial_continual
        EXPORT perennialTargets
        ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(DIRECTORY storage/include/ core/kernels/include/ core/include/ continual/include/
        DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
        FILES_MATCHING PATTERN "*.h")
if(PERENNIAL_WITH_CUDA)
  install(TARGETS perennial_kernels_cuda perennial_cuda EXPORT perennialTargets
          ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}")
  install(FILES cmake/PerennialTorchCuda.cmake DESTINATION "${_perennial_package_folder}")
  install(DIRECTORY core/kernels/cuda/include/ core/cuda/include/ DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
          FILES_MATCHING PATTERN "*.h")
endif()

# The installed program finds LibTorch where the build found it. Said in full, because the link path
# leaves out folders inside the source tree, such as .deps.
set_target_properties(perennial PROPERTIES
  INSTALL_RPATH "${PERENNIAL_TORCH_USED}/lib" INSTALL_RPATH_USE_LINK_PATH TRUE)
install(TARGETS perennial RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")

install(EXPORT perennialTargets NAMESPACE perennial:: DESTINATION "${_perennial_package_folder}")
configure_package_config_file(cmake/perennialConfig.cmake.in
  "${PROJECT_BINARY_DIR}/perennialConfig.cmake"
  INSTALL_DESTINATION "${_perennial_package_folder}"
  NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file("${PROJECT_BINARY_DIR}/perennialConfigVersion.cmake"
  COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/perennialConfig.cmake"
              "${PROJECT_BINARY_DIR}/perennialConfigVersion.cmake"
              cmake/PerennialTorch.cmake
              cmake/PerennialXxhash.cmake
        DESTINATION "${_perennial_package_folder}")
