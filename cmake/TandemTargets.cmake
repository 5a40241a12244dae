# One folder, one library: tandem_library(NAME SOURCES ... DEPS ...) adds STATIC library tandem_NAME, with our warnings.
function(tandem_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;DEPS" ${ARGN})
  add_library(tandem_${name} STATIC ${arg_SOURCES})
  target_link_libraries(tandem_${name} PUBLIC tandem_options ${arg_DEPS})
endfunction()

# tandem_binary(tandem-router SOURCES main.cc DEPS ...) adds an executable that lands in build/PRESET/bin.
function(tandem_binary name)
  cmake_parse_arguments(arg "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE tandem_options ${arg_DEPS})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
endfunction()

add_custom_target(tandem_tests)   # every test program of this preset

# tandem_test(NAME LABELS unit [tsan] SOURCES ... DEPS ... [TIMEOUT s]) adds a GoogleTest program and registers it as one
# ctest entry. The label `tsan` is for programs that hold neither gRPC nor ggml: only they are built under that preset.
function(tandem_test name)
  cmake_parse_arguments(arg "" "TIMEOUT" "LABELS;SOURCES;DEPS" ${ARGN})
  if(TANDEM_SANITIZE MATCHES thread AND NOT "tsan" IN_LIST arg_LABELS)
    return()
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE tandem_options ${arg_DEPS} GTest::gmock GTest::gtest_main)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
  add_dependencies(tandem_tests ${name})
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS "${arg_LABELS}" TIMEOUT ${arg_TIMEOUT}
    ENVIRONMENT "TANDEM_SOURCE_DIR=${PROJECT_SOURCE_DIR};TANDEM_BINARY_DIR=${PROJECT_BINARY_DIR}")
endfunction()

# tandem_python_tests(LABEL TIMEOUT s [NAMES ...] CLUSTER ...) registers this folder's test_NAME.py as one ctest entry each, LABEL_NAME, run
# with the Python of tests/e2e/setup.sh (TANDEM_PYTHON, or the one in TANDEM_CACHE). Those of CLUSTER start clusters: one at a time on a machine. A+B: test_A.py and test_B.py
# in one run, LABEL_A, with session fixtures in common.
function(tandem_python_tests label)
  cmake_parse_arguments(arg "" "TIMEOUT" "NAMES;CLUSTER" ${ARGN})
  foreach(names ${arg_NAMES} ${arg_CLUSTER})
    string(REGEX MATCH "^[^+]+" name ${names})
    string(REGEX REPLACE "([^+]+)[+]?" "${CMAKE_CURRENT_SOURCE_DIR}/test_\\1.py;" files ${names})
    add_test(NAME ${label}_${name} COMMAND ${PROJECT_SOURCE_DIR}/tests/e2e/run.sh ${files})
    set_tests_properties(${label}_${name} PROPERTIES LABELS ${label} TIMEOUT ${arg_TIMEOUT}
      ENVIRONMENT "TANDEM_SOURCE_DIR=${PROJECT_SOURCE_DIR};TANDEM_BINARY_DIR=${PROJECT_BINARY_DIR}")
  endforeach()
  list(TRANSFORM arg_CLUSTER REPLACE "[+].*" "")
  list(TRANSFORM arg_CLUSTER PREPEND ${label}_)
  set_tests_properties(${arg_CLUSTER} PROPERTIES RESOURCE_LOCK cluster)
endfunction()
