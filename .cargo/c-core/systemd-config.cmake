# Found instead of libsystemd, and defines no target: see ../config.toml.
#
# C-core's CMakeLists.txt comes by here, so this is also where its build is made faster: two dozen of its files are compiled
# as one (CMake's unity build), since most of the time goes into headers and templates that all of them share. What a
# compiler would find twice in one such piece, and what touchdown has of its own in place of C-core's, stays alone.
if(NOT CMAKE_PROJECT_NAME STREQUAL "grpc" OR CMAKE_VERSION VERSION_LESS 3.19)
  return()
endif()
# The linker takes pieces whole: a server without the feature `client` gets a tenth larger by it (armv7: 2.47 MB). Who builds for
# size (`opt-level = "s"`, cargo's profile `edge` here) waits rather.
if(CMAKE_BUILD_TYPE STREQUAL "MinSizeRel")
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
  touchdown_unite(grpc_unsecure "/ev_|bin_encoder|alts_credentials|local_transport|weighted_target|resolver/dns/|plugin_registry|transport/frame_data|transport/metadata_batch")
  touchdown_unite(re2 "dfa|nfa|onepass|prefilter")
  touchdown_unite(strings "numbers")
  foreach(target base cord cord_internal gpr str_format_internal synchronization)
    touchdown_unite(${target} "^$")
  endforeach()
endfunction()
cmake_language(DEFER CALL touchdown_unite_all)
