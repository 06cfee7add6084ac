# `cmake --install` and what find_package(cadre) needs: every room that was built, its headers, and a
# package file that finds what they depend on. A room is a component of the package.

include(CMakePackageConfigHelpers)

get_property(CADRE_ROOM_NAMES GLOBAL PROPERTY CADRE_ROOM_NAMES)
get_property(CADRE_TORCH_ROOM_NAMES GLOBAL PROPERTY CADRE_TORCH_ROOM_NAMES)
set(room_targets ${CADRE_ROOM_NAMES})
list(TRANSFORM room_targets PREPEND cadre_)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/cadre)

install(TARGETS ${room_targets} EXPORT cadreTargets
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development)
install(EXPORT cadreTargets NAMESPACE cadre:: DESTINATION ${package_dir} COMPONENT development)
foreach(room ${CADRE_ROOM_NAMES})
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/cadre/${room}
          DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/cadre COMPONENT development
          FILES_MATCHING PATTERN "*.h" PATTERN "test_*" EXCLUDE PATTERN "*_test_*" EXCLUDE)
endforeach()

configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/cadreConfig.cmake.in
                              ${PROJECT_BINARY_DIR}/cadreConfig.cmake
                              INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/cadreConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/cadreConfig.cmake ${PROJECT_BINARY_DIR}/cadreConfigVersion.cmake
        DESTINATION ${package_dir} COMPONENT development)
