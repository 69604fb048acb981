# depthstill_options holds what every target of ours is compiled with.
add_library(depthstill_options INTERFACE)
target_include_directories(depthstill_options INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_features(depthstill_options INTERFACE cxx_std_20)

set(_cxx_flags -Wall -Wextra -Wconversion -Wshadow -Werror -Wno-unknown-pragmas -fno-math-errno -fno-trapping-math)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  list(APPEND _cxx_flags -march=${DEPTHSTILL_MARCH})
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # g++ 12 reports false positives of these in its own standard library at -O3.
  list(APPEND _cxx_flags -Wno-array-bounds -Wno-stringop-overflow -Wno-stringop-overread -Wno-restrict -Wno-psabi)
endif()
target_compile_options(depthstill_options INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${_cxx_flags}>")

# ccache caches files with precompiled headers of g++ only with this option.
function(_depthstill_cache_precompiled target)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:-fpch-preprocess>")
  endif()
endfunction()

# Parses headers that many files of the target include once for all of them.
function(depthstill_precompile target)
  foreach(header IN LISTS ARGN)
    target_precompile_headers(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:${header}>")
  endforeach()
  _depthstill_cache_precompiled(${target})
endfunction()

# Uses the headers that `owner` has parsed. Both have to be compiled with the same options.
function(depthstill_precompile_as target owner)
  target_precompile_headers(${target} REUSE_FROM ${owner})
  _depthstill_cache_precompiled(${target})
endfunction()

# simt.cpp must not see -fsanitize=thread, so the flags of that mode sit on a target of their own.
add_library(depthstill_sanitizer INTERFACE)
if(DEPTHSTILL_SANITIZE STREQUAL "address")
  set(_sanitize -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
elseif(DEPTHSTILL_SANITIZE STREQUAL "thread")
  set(_sanitize -fsanitize=thread -fno-omit-frame-pointer)
  target_compile_definitions(depthstill_sanitizer INTERFACE DEPTHSTILL_STD_THREADS)
elseif(NOT DEPTHSTILL_SANITIZE STREQUAL "")
  message(FATAL_ERROR "DEPTHSTILL_SANITIZE is '${DEPTHSTILL_SANITIZE}'; expected nothing, address or thread")
endif()
if(_sanitize)
  target_compile_options(depthstill_sanitizer INTERFACE ${_sanitize})
  target_link_options(depthstill_sanitizer INTERFACE ${_sanitize})
endif()
