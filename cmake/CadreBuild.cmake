# How every room, test, tool and benchmark of cadre is built: one place for flags and dependencies.

find_package(Threads REQUIRED)
find_package(OpenMP REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(hwy REQUIRED)
find_package(ZLIB REQUIRED)
if(CADRE_TESTS)
  find_package(GTest REQUIRED)
  include(GoogleTest)
endif()

# ccache with precompiled headers needs to be told to trust them; clones of the repository share what
# one of them compiled.
find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
      CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} CCACHE_NOHASHDIR=1
      ${CCACHE_PROGRAM})
endif()

# What the command line needs (make build), what the tsan preset runs, what the fuzz preset runs.
add_custom_target(programs)
add_custom_target(thread_tests)
add_custom_target(fuzz_targets)

add_library(cadre_flags INTERFACE)
# Designated initialisers leave fields out on purpose; GCC 12 warns of overlapping copies wherever
# std::string is added to a literal (GCC bug 105651).
target_compile_options(cadre_flags INTERFACE -Wall -Wextra -Wno-missing-field-initializers
                                             $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)
if(CCACHE_PROGRAM)
  target_compile_options(cadre_flags INTERFACE $<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>
                                               $<$<CXX_COMPILER_ID:Clang>:SHELL:-Xclang -fno-pch-timestamp>)
endif()
if(CADRE_SANITIZE)
  target_compile_options(cadre_flags INTERFACE -fsanitize=${CADRE_SANITIZE} -fno-omit-frame-pointer
                                               -fno-sanitize-recover=all)
  target_link_options(cadre_flags INTERFACE -fsanitize=${CADRE_SANITIZE})
endif()

if(CADRE_LEARN)
  find_package(Torch REQUIRED)
  # LibTorch's headers are not ours to keep free of warnings.
  add_library(cadre_torch INTERFACE)
  target_include_directories(cadre_torch SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})
  target_link_libraries(cadre_torch INTERFACE ${TORCH_LIBRARIES})
  # A plain include of <torch/torch.h> costs 30 s, a precompiled one 8: all torch rooms share this one.
  file(GENERATE OUTPUT ${PROJECT_BINARY_DIR}/torch_pch.cpp CONTENT "")
  add_library(cadre_torch_pch OBJECT ${PROJECT_BINARY_DIR}/torch_pch.cpp)
  target_link_libraries(cadre_torch_pch PRIVATE cadre_flags cadre_torch OpenMP::OpenMP_CXX)
  target_precompile_headers(cadre_torch_pch PRIVATE <torch/torch.h>)
endif()

# Gives a target cadre's flags and includes; TORCH adds LibTorch through the shared precompiled header.
function(cadre_configure target scope)
  cmake_parse_arguments(ARG "TORCH" "" "" ${ARGN})
  target_include_directories(${target} ${scope} $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
                                                $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_link_libraries(${target} PRIVATE $<BUILD_INTERFACE:cadre_flags>)
  if(ARG_TORCH)
    target_link_libraries(${target} ${scope} $<BUILD_INTERFACE:cadre_torch>
                                            $<INSTALL_INTERFACE:cadre::torch> OpenMP::OpenMP_CXX)
    target_precompile_headers(${target} REUSE_FROM cadre_torch_pch)
    # GCC takes a precompiled header only under the same code model: programs too are -fPIC, not -fPIE.
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
    target_compile_options(${target} PRIVATE -fPIC)
  endif()
endfunction()

# A room: cadre_room(NAME SOURCES ... DEPS other rooms and libraries ... [TORCH] [TESTS files ...]
# [THREAD_TESTS files ...]). The unit tests stand beside the code and make one program,
# cadre_NAME_test. Tests of code with threads of its own make a second one, which the tsan preset
# runs. They must not reach an OpenMP loop: libgomp is not instrumented, so ThreadSanitizer takes
# its barriers for races.
function(cadre_room name)
  cmake_parse_arguments(ARG "TORCH" "" "SOURCES;DEPS;TESTS;THREAD_TESTS" ${ARGN})
  set(torch "")
  if(ARG_TORCH)
    set(torch TORCH)
  endif()
  add_library(cadre_${name} STATIC ${ARG_SOURCES})
  add_library(cadre::${name} ALIAS cadre_${name})
  set_target_properties(cadre_${name} PROPERTIES EXPORT_NAME ${name})
  cadre_configure(cadre_${name} PUBLIC ${torch})
  target_link_libraries(cadre_${name} PUBLIC ${ARG_DEPS})
  set_property(GLOBAL APPEND PROPERTY CADRE_ROOM_NAMES ${name})
  if(ARG_TORCH)
    set_property(GLOBAL APPEND PROPERTY CADRE_TORCH_ROOM_NAMES ${name})
  endif()
  if(CADRE_TESTS AND ARG_TESTS)
    cadre_test(cadre_${name}_test SOURCES ${ARG_TESTS} DEPS cadre_${name} ${torch})
  endif()
  if(CADRE_TESTS AND ARG_THREAD_TESTS)
    cadre_test(cadre_${name}_thread_test SOURCES ${ARG_THREAD_TESTS} DEPS cadre_${name} ${torch}
               LABELS threads)
    add_dependencies(thread_tests cadre_${name}_thread_test)
  endif()
endfunction()

# A test program whose GoogleTest cases each become one ctest entry.
function(cadre_test name)
  cmake_parse_arguments(ARG "TORCH" "" "SOURCES;DEPS;LABELS" ${ARGN})
  set(torch "")
  if(ARG_TORCH)
    set(torch TORCH)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  cadre_configure(${name} PRIVATE ${torch})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE CADRE_SOURCE_DIR="${PROJECT_SOURCE_DIR}"
                                             CADRE_BIN_DIR="${CMAKE_RUNTIME_OUTPUT_DIRECTORY}")
  gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60
                       PROPERTIES TIMEOUT 300 LABELS "${ARG_LABELS}")
endfunction()

# One verb of the command line: tools/VERB.cpp becomes the program cadre-VERB.
function(cadre_tool verb)
  cmake_parse_arguments(ARG "TORCH" "" "SOURCES;DEPS" ${ARGN})
  set(torch "")
  if(ARG_TORCH)
    set(torch TORCH)
  endif()
  add_executable(cadre-${verb} ${ARG_SOURCES})
  cadre_configure(cadre-${verb} PRIVATE ${torch})
  target_link_libraries(cadre-${verb} PRIVATE ${ARG_DEPS})
  add_dependencies(programs cadre-${verb})
  install(TARGETS cadre-${verb} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endfunction()

# A parser's fuzz target: tests/fuzz/NAME.cpp with libFuzzer.
function(cadre_fuzz name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  if(NOT CADRE_FUZZ)
    return()
  endif()
  add_executable(fuzz_${name} ${ARG_SOURCES})
  cadre_configure(fuzz_${name} PRIVATE)
  target_link_libraries(fuzz_${name} PRIVATE ${ARG_DEPS})
  target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  add_dependencies(fuzz_targets fuzz_${name})
endfunction()
