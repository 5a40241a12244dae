# find_package(Tandem CONFIG): Tandem::tandem_backend, what a StageBackend links, and Tandem::tandem_backend_conformance, the suite with
# its main. Built with C++20 as they are.
include(CMakeFindDependencyMacro)
find_dependency(absl CONFIG)
find_dependency(yaml-cpp CONFIG)
find_dependency(GTest CONFIG)
include(${CMAKE_CURRENT_LIST_DIR}/TandemTargets.cmake)
