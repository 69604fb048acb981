# Finds cuDNN 9 in the toolkit, a conda environment or a pip wheel (nvidia-cudnn-cu12/13), header and library from one
# root, so that a wheel's header never meets a system library. Hints: CUDNN_ROOT, CUDNN_PATH, CUDNN_HOME.
# Defines CUDNN::cudnn (the graph library, which is all we call), CUDNN_VERSION, CUDNN_LIBRARY_DIR.
set(_roots ${CUDNN_ROOT} $ENV{CUDNN_ROOT} $ENV{CUDNN_PATH} $ENV{CUDNN_HOME} $ENV{CONDA_PREFIX})
if(CUDAToolkit_INCLUDE_DIRS)
  list(GET CUDAToolkit_INCLUDE_DIRS 0 _toolkit)
  list(APPEND _roots ${_toolkit}/..)
endif()
list(APPEND _roots /usr /usr/local)
find_program(_python NAMES python3 python)
if(_python)
  execute_process(
    COMMAND ${_python} -c
            "import importlib.util as u; s = u.find_spec('nvidia.cudnn') if u.find_spec('nvidia') else None; print(list(s.submodule_search_locations)[0] if s else '')"
    OUTPUT_VARIABLE _wheel OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  list(APPEND _roots ${_wheel})
endif()

foreach(_root IN LISTS _roots)
  find_path(CUDNN_INCLUDE_DIR cudnn_version.h PATHS ${_root} PATH_SUFFIXES include include/x86_64-linux-gnu
            NO_DEFAULT_PATH)
  find_library(CUDNN_LIBRARY NAMES cudnn_graph libcudnn_graph.so.9 cudnn libcudnn.so.9 NAMES_PER_DIR PATHS ${_root}
               PATH_SUFFIXES lib lib64 lib/x86_64-linux-gnu NO_DEFAULT_PATH)
  if(CUDNN_INCLUDE_DIR AND CUDNN_LIBRARY)
    break()
  endif()
  unset(CUDNN_INCLUDE_DIR CACHE)
  unset(CUDNN_LIBRARY CACHE)
endforeach()

if(CUDNN_INCLUDE_DIR)
  file(STRINGS ${CUDNN_INCLUDE_DIR}/cudnn_version.h _lines REGEX "#define CUDNN_(MAJOR|MINOR|PATCHLEVEL)")
  string(REGEX REPLACE ".*CUDNN_MAJOR ([0-9]+).*CUDNN_MINOR ([0-9]+).*CUDNN_PATCHLEVEL ([0-9]+).*" "\\1.\\2.\\3"
                       CUDNN_VERSION "${_lines}")
endif()
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(CUDNN REQUIRED_VARS CUDNN_LIBRARY CUDNN_INCLUDE_DIR VERSION_VAR CUDNN_VERSION)
if(CUDNN_FOUND AND NOT TARGET CUDNN::cudnn)
  get_filename_component(CUDNN_LIBRARY_DIR ${CUDNN_LIBRARY} DIRECTORY)
  add_library(CUDNN::cudnn SHARED IMPORTED)
  set_target_properties(CUDNN::cudnn PROPERTIES IMPORTED_LOCATION ${CUDNN_LIBRARY}
                                                INTERFACE_INCLUDE_DIRECTORIES ${CUDNN_INCLUDE_DIR})
endif()
