# Binaries that travel are built for a lesser processor than most machines have. Their loops over elements, norms and
# depthwise convolutions are compiled once more for each wider processor in this list; the first call of a program decides.
set(DEPTHSTILL_WIDTHS avx512 avx512bf16) # in the order of kernels/core/loop_width.cpp
set(DEPTHSTILL_WIDTH_avx512 -mavx512f -mavx512bw -mavx512cd -mavx512dq -mavx512vl)
set(DEPTHSTILL_WIDTH_avx512bf16 ${DEPTHSTILL_WIDTH_avx512} -mavx512bf16)

# Only GNU ld makes one object out of a width's, without the groups of inline functions that are merged across objects.
execute_process(COMMAND ${CMAKE_LINKER} --help OUTPUT_VARIABLE _linker_help ERROR_QUIET)
string(FIND "${_linker_help}" "--force-group-allocation" DEPTHSTILL_CAN_LINK_WIDTHS)
if(DEPTHSTILL_CAN_LINK_WIDTHS EQUAL -1 OR NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64" OR DEPTHSTILL_SANITIZE)
  set(DEPTHSTILL_CAN_LINK_WIDTHS FALSE)
else()
  set(DEPTHSTILL_CAN_LINK_WIDTHS TRUE)
endif()

# Compiles `sources` for each width with what `options` (targets) say, and sets `object` to the one object file that has
# them all: link_widths.sh says how.
function(depthstill_link_widths object name)
  cmake_parse_arguments(arg "" "" "SOURCES;OPTIONS" ${ARGN})
  set(parts)
  set(objects)
  foreach(width IN ITEMS base ${DEPTHSTILL_WIDTHS})
    add_library(${name}_${width} OBJECT ${arg_SOURCES})
    target_link_libraries(${name}_${width} PRIVATE ${arg_OPTIONS})
    target_compile_options(${name}_${width} PRIVATE ${DEPTHSTILL_WIDTH_${width}})
    list(APPEND parts --width ${width} $<TARGET_OBJECTS:${name}_${width}>)
    list(APPEND objects $<TARGET_OBJECTS:${name}_${width}>)
  endforeach()
  set(out ${CMAKE_CURRENT_BINARY_DIR}/${name}.o)
  set(script ${PROJECT_SOURCE_DIR}/cmake/link_widths.sh)
  add_custom_command(OUTPUT ${out}
    COMMAND ${CMAKE_COMMAND} -E env LD=${CMAKE_LINKER} NM=${CMAKE_NM} OBJCOPY=${CMAKE_OBJCOPY} CC=${CMAKE_C_COMPILER}
            bash ${script} ${out} ${parts}
    DEPENDS ${script} ${objects} COMMAND_EXPAND_LISTS VERBATIM COMMENT "Linking the widths of ${name}")
  set_source_files_properties(${out} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
  set(${object} ${out} PARENT_SCOPE)
endfunction()
