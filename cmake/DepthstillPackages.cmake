# Every library we use comes as a package of the system; tools/setup.sh installs them.
find_package(Threads REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS CXX)
find_package(ZLIB REQUIRED)
find_package(nlohmann_json 3.9 REQUIRED)
find_package(CLI11 REQUIRED)

# Debian's oneDNN has a CMake package from 2.7 on; the header and library are enough for all versions.
find_path(DNNL_INCLUDE_DIR dnnl.hpp HINTS ${DNNL_ROOT} PATH_SUFFIXES include)
find_library(DNNL_LIBRARY dnnl HINTS ${DNNL_ROOT} PATH_SUFFIXES lib)
find_path(STB_INCLUDE_DIR stb_image.h PATH_SUFFIXES stb)
find_path(TOMLPLUSPLUS_INCLUDE_DIR toml++/toml.h)
foreach(_item DNNL_INCLUDE_DIR DNNL_LIBRARY STB_INCLUDE_DIR TOMLPLUSPLUS_INCLUDE_DIR)
  if(NOT ${_item})
    message(FATAL_ERROR "${_item} not found. `bash tools/setup.sh` installs what depthstill needs "
                        "(libdnnl-dev, libstb-dev, libtomlplusplus-dev, ...).")
  endif()
endforeach()

function(depthstill_imported name include)
  add_library(${name} INTERFACE IMPORTED)
  target_include_directories(${name} SYSTEM INTERFACE ${include})
  if(ARGN)
    target_link_libraries(${name} INTERFACE ${ARGN})
  endif()
endfunction()
depthstill_imported(depthstill::dnnl ${DNNL_INCLUDE_DIR} ${DNNL_LIBRARY})
depthstill_imported(depthstill::stb ${STB_INCLUDE_DIR})
depthstill_imported(depthstill::toml ${TOMLPLUSPLUS_INCLUDE_DIR})

# Optional: the decoders of images. stb_image serves where they are missing.
option(DEPTHSTILL_IMAGE_LIBRARIES "Read images by libpng and libjpeg where they are found" ON)
if(DEPTHSTILL_IMAGE_LIBRARIES)
  find_package(PNG)
  find_package(JPEG)
endif()

# Optional: the classes of the ONNX protobuf schema, for `depthstill export --format onnx`.
find_path(ONNX_INCLUDE_DIR onnx/onnx-ml.pb.h)
find_library(ONNX_PROTO_LIBRARY onnx_proto)
find_library(PROTOBUF_LIBRARY protobuf)
if(ONNX_INCLUDE_DIR AND ONNX_PROTO_LIBRARY AND PROTOBUF_LIBRARY)
  depthstill_imported(depthstill::onnx ${ONNX_INCLUDE_DIR} ${ONNX_PROTO_LIBRARY} ${PROTOBUF_LIBRARY})
  target_compile_definitions(depthstill::onnx INTERFACE ONNX_ML=1 ONNX_NAMESPACE=onnx)
endif()
