# The tree's own rules, and the installed package as a user's project sees it.

set(scripts ${PROJECT_SOURCE_DIR}/scripts)
add_test(NAME rules.arrows COMMAND ${scripts}/check-arrows)
foreach(script check-arrows install-packages)
  add_test(NAME rules.${script}-works COMMAND ${CMAKE_CURRENT_LIST_DIR}/scripts/${script}-test)
endforeach()
find_program(CLANG_FORMAT clang-format-14)
if(CLANG_FORMAT)
  add_test(NAME rules.format COMMAND ${scripts}/check-format)
endif()

# Under a sanitizer the libraries would ask every consumer for its run-time.
if(NOT CADRE_SANITIZE)
  set(prefix ${PROJECT_BINARY_DIR}/consumer-prefix)
  add_test(NAME package.install
           COMMAND ${CMAKE_COMMAND} --install ${PROJECT_BINARY_DIR} --prefix ${prefix}
                   --component development)
  add_test(NAME package.consumer
           COMMAND ${CMAKE_CTEST_COMMAND} --build-and-test ${CMAKE_CURRENT_LIST_DIR}/consumer
                   ${PROJECT_BINARY_DIR}/consumer --build-generator ${CMAKE_GENERATOR}
                   --build-options -DCMAKE_PREFIX_PATH=${prefix} -DCMAKE_BUILD_TYPE=Debug
                   -DCMAKE_CXX_COMPILER_LAUNCHER=${CCACHE_PROGRAM}
                   --test-command ${CMAKE_CTEST_COMMAND} --output-on-failure)
  set_tests_properties(package.install PROPERTIES FIXTURES_SETUP package)
  set_tests_properties(package.consumer PROPERTIES FIXTURES_REQUIRED package TIMEOUT 600)
endif()
