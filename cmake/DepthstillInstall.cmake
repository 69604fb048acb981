# The door for other programs: binary, headers, a CMake package and a pkg-config file.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS depthstill)
set(_include ${CMAKE_INSTALL_INCLUDEDIR}/depthstill)
set(_package ${CMAKE_INSTALL_LIBDIR}/cmake/depthstill)

foreach(_floor engine models losses)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/${_floor} DESTINATION ${_include} FILES_MATCHING PATTERN "*.h"
          PATTERN onnx EXCLUDE PATTERN stb.h EXCLUDE)  # files that need the headers of others
endforeach()
install(FILES ${PROJECT_SOURCE_DIR}/models/onnx/export.h DESTINATION ${_include}/models/onnx)
# Of the kernels, the headers that the floors above include are installed: others depend on the instructions that they
# are compiled for.
foreach(_header IN LISTS DEPTHSTILL_KERNEL_HEADERS)
  get_filename_component(_folder ${_header} DIRECTORY)
  install(FILES ${PROJECT_SOURCE_DIR}/kernels/${_header} DESTINATION ${_include}/kernels/${_folder})
endforeach()
install(FILES ${PROJECT_SOURCE_DIR}/tools/library/depthstill.h DESTINATION ${_include})

set(DEPTHSTILL_IMAGE_PACKAGES "")
set(_pc_images "")
foreach(_format IN ITEMS PNG JPEG)
  if(TARGET ${_format}::${_format})
    string(APPEND DEPTHSTILL_IMAGE_PACKAGES " ${_format}")
    string(REPLACE ";" " " _files "${${_format}_LIBRARIES}")
    string(APPEND _pc_images "${_files} ")
  endif()
endforeach()
get_property(_libraries GLOBAL PROPERTY DEPTHSTILL_EXPORTED)
install(TARGETS ${_libraries} EXPORT depthstillTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT depthstillTargets NAMESPACE depthstill:: DESTINATION ${_package})
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/depthstillConfig.cmake.in depthstillConfig.cmake
                              INSTALL_DESTINATION ${_package})
write_basic_package_version_file(depthstillConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/depthstillConfig.cmake ${PROJECT_BINARY_DIR}/depthstillConfigVersion.cmake
              ${PROJECT_SOURCE_DIR}/cmake/FindCUDNN.cmake
        DESTINATION ${_package})

# pkg-config names libraries by file; floors stand before what they need.
set(_pc_floors "")
foreach(_library IN ITEMS losses models engine kernels_cuda kernels_simt kernels_cpu)
  if(depthstill_${_library} IN_LIST _libraries)
    string(APPEND _pc_floors " -ldepthstill_${_library}")
  endif()
endforeach()
set(_pc_others "${DNNL_LIBRARY} ${_pc_images}-lz ${OpenMP_CXX_FLAGS} -lpthread")
if(TARGET depthstill::onnx)
  string(PREPEND _pc_others "${ONNX_PROTO_LIBRARY} ${PROTOBUF_LIBRARY} ")
endif()
if(DEPTHSTILL_WITH_CUDA)
  string(APPEND _pc_others " ${CUDNN_LIBRARY} -L${CUDAToolkit_LIBRARY_DIR} -lcublasLt -lcudart -ldl")
endif()
configure_file(${PROJECT_SOURCE_DIR}/cmake/depthstill.pc.in depthstill.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/depthstill.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
