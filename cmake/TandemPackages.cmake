# Debian 12's packages. The order and the modes matter: shared/cmake's notes, repeated where each bites.
find_package(Threads REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(Protobuf REQUIRED)          # module mode: Debian ships no protobuf-config.cmake
find_package(absl CONFIG REQUIRED)
find_package(gRPC CONFIG REQUIRED)       # after Protobuf; needs pkg-config to find RE2
find_package(prometheus-cpp CONFIG REQUIRED)
find_package(Boost 1.81 REQUIRED COMPONENTS json url)   # Asio and Beast are headers
find_package(yaml-cpp CONFIG REQUIRED)   # 0.7 exports the plain name yaml-cpp
find_package(spdlog CONFIG REQUIRED)
find_package(CLI11 CONFIG REQUIRED)
find_package(Eigen3 CONFIG REQUIRED)     # headers: the planner's least squares
set(CURSES_NEED_NCURSES TRUE)
set(CURSES_NEED_WIDE TRUE)
find_package(Curses REQUIRED)            # ncursesw and its tinfo; module mode, without a target
find_package(GTest CONFIG REQUIRED)
find_package(benchmark CONFIG REQUIRED)

add_library(tandem_ncurses INTERFACE)
target_include_directories(tandem_ncurses SYSTEM INTERFACE ${CURSES_INCLUDE_DIRS})
target_compile_definitions(tandem_ncurses INTERFACE NCURSES_WIDECHAR=1)
target_link_libraries(tandem_ncurses INTERFACE ${CURSES_LIBRARIES})

# Asio and Beast compiled once, instead of in every file that includes them.
add_library(tandem_boost STATIC ${PROJECT_SOURCE_DIR}/cmake/boost_impl.cc)
target_compile_definitions(tandem_boost PUBLIC BOOST_ASIO_NO_DEPRECATED BOOST_ASIO_SEPARATE_COMPILATION
                                               BOOST_BEAST_SEPARATE_COMPILATION)
target_link_libraries(tandem_boost PUBLIC Boost::headers OpenSSL::SSL OpenSSL::Crypto Threads::Threads)
if(TANDEM_SANITIZE)
  target_compile_options(tandem_boost PRIVATE -fsanitize=${TANDEM_SANITIZE} -fno-omit-frame-pointer)
endif()
