# The floors of the house, from the ground up; ARCHITECTURE.md says what stands where.
set(DEPTHSTILL_FLOORS kernels engine models losses tools)

# Gives `target` what every library of ours is compiled with here, and finds its headers by where it is installed. It
# becomes part of the package (DepthstillInstall.cmake) as depthstill::<its name without "depthstill_">.
function(depthstill_library target)
  target_link_libraries(${target} PUBLIC $<BUILD_INTERFACE:depthstill_options> $<BUILD_INTERFACE:depthstill_sanitizer>)
  target_include_directories(${target} INTERFACE $<INSTALL_INTERFACE:include/depthstill>)
  target_compile_features(${target} PUBLIC cxx_std_20)
  string(REPLACE "depthstill_" "" name ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name})
  set_property(GLOBAL APPEND PROPERTY DEPTHSTILL_EXPORTED ${target})
endfunction()

# depthstill_floor(NAME SOURCES ... [LIBRARIES ...] [HEADERS ...]): the static library of a floor. Its headers include
# those of the floor below, which is linked publicly; what others provide is private to the floor that needs it:
# libraries, and headers without one.
function(depthstill_floor name)
  cmake_parse_arguments(arg "" "" "SOURCES;LIBRARIES;HEADERS" ${ARGN})
  list(FIND DEPTHSTILL_FLOORS ${name} level)
  math(EXPR level "${level} - 1")
  list(GET DEPTHSTILL_FLOORS ${level} below)
  add_library(depthstill_${name} STATIC ${arg_SOURCES})
  target_link_libraries(depthstill_${name} PUBLIC depthstill_${below} PRIVATE ${arg_LIBRARIES})
  foreach(headers IN LISTS arg_HEADERS)
    target_link_libraries(depthstill_${name} PRIVATE $<BUILD_INTERFACE:${headers}>)
  endforeach()
  if(NOT name STREQUAL "tools")
    depthstill_library(depthstill_${name})
  endif()
endfunction()

# Linking upwards would make the floors one: what a floor's target links is looked at once all are known.
function(depthstill_check_floors)
  foreach(name IN LISTS DEPTHSTILL_FLOORS)
    list(FIND DEPTHSTILL_FLOORS ${name} level)
    get_target_property(links depthstill_${name} LINK_LIBRARIES)
    foreach(other IN LISTS DEPTHSTILL_FLOORS)
      list(FIND DEPTHSTILL_FLOORS ${other} other_level)
      if(other_level GREATER_EQUAL level AND "depthstill_${other}" IN_LIST links)
        message(FATAL_ERROR "depthstill_${name} links depthstill_${other}, which does not stand below it")
      endif()
    endforeach()
  endforeach()
endfunction()
