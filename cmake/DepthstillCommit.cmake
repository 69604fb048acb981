# This runs at every build (cmake -P) and writes OUTPUT, a header with the commit that SOURCE_DIR is at, only if that
# changed.
set(commit "")
find_program(GIT git)
if(GIT)
  execute_process(COMMAND ${GIT} -C ${SOURCE_DIR} describe --always --dirty=-changed --abbrev=12 --exclude=*
                  OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
if(commit STREQUAL "")
  set(commit "unknown")  # not a git checkout
endif()
file(CONFIGURE OUTPUT ${OUTPUT} CONTENT "#define DEPTHSTILL_COMMIT \"@commit@\"\n" @ONLY)
