# Found instead of libsystemd, and defines no target: see ../config.toml.
#
# C-core's CMakeLists.txt comes by here, so this is also where its build is made faster: two dozen of its files are compiled
# as one (CMake's unity build), since most of the time goes into headers and templates that all of them share. What a
# compiler would find twice in one such piece, and what touchdown has of its own in place of C-core's, stays alone.
if(NOT CMAKE_PROJECT_NAME STREQUAL "grpc" OR CMAKE_VERSION VERSION_LESS 3.19)
  return()
endif()
# The linker takes united files whole: a server without the feature `client` gets a tenth larger by it (armv7: 2.47 MB). Who builds
# for size (`opt-level = "s"`, cargo's profile `edge` here) has the headers alone read once, which leaves the files as they are.
if(CMAKE_BUILD_TYPE STREQUAL "MinSizeRel")
  function(touchdown_precompile)
    if(NOT TARGET grpc_unsecure)
      return()
    endif()
    get_target_property(folder grpc_unsecure SOURCE_DIR)
    set(headers
      grpc/support/port_platform.h algorithm atomic functional map memory string utility vector
      absl/functional/any_invocable.h absl/status/status.h absl/status/statusor.h absl/strings/str_cat.h
      absl/strings/str_format.h absl/types/optional.h absl/types/variant.h)
    list(TRANSFORM headers REPLACE "(.+)" "$<$<COMPILE_LANGUAGE:CXX>:<\\1$<ANGLE-R>>")
    foreach(header channel/channel_args channel/channel_stack promise/arena_promise transport/transport)
      list(APPEND headers "$<$<COMPILE_LANGUAGE:CXX>:${folder}/src/core/lib/${header}.h>")
    endforeach()
    target_precompile_headers(grpc_unsecure PRIVATE ${headers})
    # So that ccache, which config.toml tells that it may, finds what was compiled with them.
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      target_compile_options(grpc_unsecure PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:-fpch-preprocess>")
    endif()
  endfunction()
  cmake_language(DEFER CALL touchdown_precompile)
  return()
endif()

function(touchdown_unite target alone)
  if(NOT TARGET ${target})
    return()
  endif()
  get_target_property(sources ${target} SOURCES)
  get_target_property(folder ${target} SOURCE_DIR)
  foreach(source IN LISTS sources)
    if(source MATCHES "\\.c$|${alone}")
      get_filename_component(source ${source} ABSOLUTE BASE_DIR ${folder})
      set_source_files_properties(${source} DIRECTORY ${folder} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
    endif()
  endforeach()
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 24)
endfunction()

function(touchdown_unite_all)
  touchdown_unite(grpc_unsecure "/ev_|bin_encoder|alts_credentials|local_transport|weighted_target|resolver/dns/|plugin_registry|transport/frame_data|transport/hpack_parser[.]|transport/metadata_batch")
  touchdown_unite(re2 "dfa|nfa|onepass|prefilter")
  touchdown_unite(strings "numbers")
  foreach(target base cord cord_internal gpr str_format_internal synchronization)
    touchdown_unite(${target} "^$")
  endforeach()
endfunction()
cmake_language(DEFER CALL touchdown_unite_all)
