# The floors of the house, from the ground up; ARCHITECTURE.md says what stands where.
set(DEPTHSTILL_FLOORS kernels engine models losses tools)

# depthstill_floor(NAME SOURCES ... [LIBRARIES ...]): the static library of a floor. Its headers include those of the
# floor below, which is linked publicly; libraries of others are private to the floor that needs them.
function(depthstill_floor name)
  cmake_parse_arguments(arg "" "" "SOURCES;LIBRARIES" ${ARGN})
  list(FIND DEPTHSTILL_FLOORS ${name} level)
  math(EXPR level "${level} - 1")
  list(GET DEPTHSTILL_FLOORS ${level} below)
  add_library(depthstill_${name} STATIC ${arg_SOURCES})
  target_link_libraries(depthstill_${name} PUBLIC depthstill_${below} PRIVATE ${arg_LIBRARIES})
endfunction()

# Linking upwards would make the floors one: the libraries that a floor's target names are looked at once all are known.
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
