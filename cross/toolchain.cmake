# Debian's compilers by target, for CMake, which builds C-core: cross/env names this file.
set(CMAKE_SYSTEM_NAME Linux)
if("$ENV{TARGET}" MATCHES "^armv7-")
  set(CMAKE_SYSTEM_PROCESSOR arm)
  set(tools arm-linux-gnueabihf)
elseif("$ENV{TARGET}" MATCHES "^([^-]+)-")
  set(CMAKE_SYSTEM_PROCESSOR ${CMAKE_MATCH_1})
  set(tools ${CMAKE_MATCH_1}-linux-gnu)
endif()
set(CMAKE_C_COMPILER ${tools}-gcc)
set(CMAKE_CXX_COMPILER ${tools}-g++)

# Up to GCC 12 each file that includes <iostream> starts up C++'s streams, with all of their locales: 270 KB, which
# nothing else in C-core needs. They are started by an object of this name; it becomes a pointer that is null. From
# GCC 13 on, the library does it, when a program uses them.
if(CMAKE_SOURCE_DIR MATCHES "/grpcio-sys-[^/]*/grpc$")
  add_compile_definitions("__ioinit=*__ioinit")
endif()
