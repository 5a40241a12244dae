# Language level, build type, compiler launcher, linker, warnings and sanitizers of our own targets.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)             # CMAKE_C_EXTENSIONS stays on: -std=c11 changes the bits of ggml's C files
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "" FORCE)
endif()
# -g1 gives line numbers in stack traces at a third of -g's build time and size.
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1")
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O2 -g1")

set(TANDEM_SANITIZE "" CACHE STRING "Sanitizers of our own code: address,undefined or thread")
option(TANDEM_COVERAGE "Count which lines run (gcov), for ./dev coverage" OFF)
option(TANDEM_NATIVE "Tune ggml and the paged op to this machine (another numerics class)" OFF)
option(TANDEM_CUDA "Build ggml's CUDA devices into tandem-worker (./dev cuda has the compiler)" OFF)
option(TANDEM_FUZZ "Build the libFuzzer targets (needs clang)" OFF)

find_program(TANDEM_CCACHE ccache)
if(TANDEM_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # Paths below the source tree become relative, so that every checkout and build folder shares one cache. Only
  # -march=native is text that ccache would take for the same on every machine: it gets no cache.
  set(launcher ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${TANDEM_CCACHE})
  if(NOT TANDEM_NATIVE)
    set(CMAKE_C_COMPILER_LAUNCHER ${launcher})
    set(CMAKE_CXX_COMPILER_LAUNCHER ${launcher})
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${launcher})
  endif()
endif()
find_program(TANDEM_MOLD mold)
if(TANDEM_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

# Warnings go to our own targets, never into CMAKE_CXX_FLAGS: generated and vendored code stays out of them.
add_library(tandem_options INTERFACE)
target_compile_options(tandem_options INTERFACE "$<BUILD_INTERFACE:-Wall;-Wextra;-Werror>")
target_include_directories(tandem_options INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>)
if(TANDEM_COVERAGE)
  target_compile_options(tandem_options INTERFACE --coverage -fprofile-update=atomic)
  target_link_options(tandem_options INTERFACE --coverage)
endif()
if(TANDEM_SANITIZE)
  target_compile_options(tandem_options INTERFACE -fsanitize=${TANDEM_SANITIZE} -fno-omit-frame-pointer
                                                  -fno-sanitize-recover=all)
  target_link_options(tandem_options INTERFACE -fsanitize=${TANDEM_SANITIZE})
  if(TANDEM_SANITIZE MATCHES thread)
    # And no false alarm of coroutines, whose frame's operator new it inlines without the delete.
    target_compile_options(tandem_options INTERFACE
      -Wno-error=tsan $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-mismatched-new-delete>)
  endif()
  # g++ 12 with a sanitizer gives false alarms of these in library headers.
  target_compile_options(tandem_options INTERFACE $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
endif()
if(TANDEM_FUZZ)
  # Coverage counters in all of our code; only the targets of tests/fuzz link libFuzzer and its main.
  target_compile_options(tandem_options INTERFACE -fsanitize=fuzzer-no-link)
endif()
