# What an out-of-tree backend builds against (examples/backend): the contract's headers, the libraries below it, and the
# conformance suite, as the CMake package Tandem. No part of a plain install:
#
#   ninja -C build/dev tandem_sdk && cmake --install build/dev --prefix PREFIX --component sdk
set(sdk base model view cost backend backend_conformance)
list(TRANSFORM sdk PREPEND tandem_)
add_custom_target(tandem_sdk DEPENDS ${sdk})

install(TARGETS tandem_options ${sdk} EXPORT Tandem COMPONENT sdk EXCLUDE_FROM_ALL
  ARCHIVE DESTINATION lib/tandem INCLUDES DESTINATION include/tandem)
install(EXPORT Tandem NAMESPACE Tandem:: DESTINATION lib/cmake/Tandem FILE TandemTargets.cmake
  COMPONENT sdk EXCLUDE_FROM_ALL)
install(FILES ${PROJECT_SOURCE_DIR}/cmake/TandemConfig.cmake DESTINATION lib/cmake/Tandem COMPONENT sdk EXCLUDE_FROM_ALL)
foreach(folder scheduler/base scheduler/model scheduler/view scheduler/cost scheduler/step)
  install(DIRECTORY ${folder}/ DESTINATION include/tandem/${folder} COMPONENT sdk EXCLUDE_FROM_ALL
    FILES_MATCHING PATTERN *.h PATTERN catalog EXCLUDE)
endforeach()
install(FILES workers/backend/stage_backend.h workers/backend/device_timeline.h workers/backend/sampler.h
  DESTINATION include/tandem/workers/backend COMPONENT sdk EXCLUDE_FROM_ALL)
install(FILES tests/exact/backend_conformance.h tests/exact/ffn_conformance.h DESTINATION include/tandem/tests/exact COMPONENT sdk EXCLUDE_FROM_ALL)
