# llama.cpp and ggml from TANDEM_LLAMA_SOURCE: what `./dev` fetched, or the user's own checkout.
#
# Built for x86-64-v3 (AVX2, FMA, F16C, BMI2) on every machine: the CPU variant decides the bits of a result, so one
# build is one numerics class. TANDEM_NATIVE=ON tunes it to this machine instead, for benchmarks.
set(TANDEM_LLAMA_SOURCE "$ENV{TANDEM_LLAMA_SOURCE}" CACHE PATH "llama.cpp's source tree")
if(NOT EXISTS ${TANDEM_LLAMA_SOURCE}/include/llama.h)
  message(FATAL_ERROR "TANDEM_LLAMA_SOURCE='${TANDEM_LLAMA_SOURCE}' is no llama.cpp source tree. "
                      "Run ./dev setup, or point it to your checkout.")
endif()

set(BUILD_SHARED_LIBS OFF)
set(GGML_NATIVE ${TANDEM_NATIVE})
set(GGML_OPENMP OFF)
set(GGML_CCACHE OFF)                     # the launcher is ours
if(NOT TANDEM_NATIVE)
  foreach(feature SSE42 AVX AVX2 BMI2 FMA F16C)
    set(GGML_${feature} ON)
  endforeach()
endif()
if(TANDEM_CUDA)
  set(GGML_CUDA ON)
  set(GGML_CUDA_NO_VMM ON)               # else it links the driver, which a build machine has not
  set(GGML_CUDA_NCCL OFF)                # a worker is one device
  set(CMAKE_CUDA_ARCHITECTURES 90-real 80-virtual CACHE STRING "What ggml-cuda is compiled for: code for H100 and H200, PTX for all since A100")
endif()
set(LLAMA_OPENSSL OFF)
set(LLAMA_ALL_WARNINGS OFF)
set(LLAMA_BUILD_COMMON ON)               # jinja chat templates
add_subdirectory(${TANDEM_LLAMA_SOURCE} llama.cpp EXCLUDE_FROM_ALL SYSTEM)
foreach(target ggml-base ggml-cpu ggml llama llama-common)
  target_compile_options(${target} PRIVATE -O3)   # in Debug and sanitizer builds it would crawl
endforeach()

# The flags ggml-cpu is compiled with. The paged attention op must round as ggml does, so it takes the same.
if(TANDEM_NATIVE)
  set(TANDEM_GGML_CPU_FLAGS -march=native)
else()
  set(TANDEM_GGML_CPU_FLAGS -msse4.2 -mavx -mavx2 -mbmi2 -mfma -mf16c)
endif()
