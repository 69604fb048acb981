if(DEPTHSTILL_WITH_CUDA)
  set(_cuda "yes: nvcc ${CMAKE_CUDA_COMPILER_VERSION}, cuDNN ${CUDNN_VERSION}, GPUs ${CMAKE_CUDA_ARCHITECTURES}")
else()
  set(_cuda "no: ${DEPTHSTILL_CUDA_REASON}; CUDA kernels are compiled for the emulator only")
  if(DEPTHSTILL_WITH_SIMULATED_LIBRARIES)
    string(APPEND _cuda ", with cuDNN and cuBLASLt simulated by the headers of cuDNN ${CUDNN_VERSION}")
  else()
    string(APPEND _cuda ", with the CPU's kernels in place of cuDNN's and cuBLASLt's (${DEPTHSTILL_SIMULATED_REASON})")
  endif()
endif()
set(_onnx "no: libonnx-dev was not found; `depthstill export --format onnx` will say so")
if(TARGET depthstill::onnx)
  set(_onnx "${ONNX_PROTO_LIBRARY}")
endif()
set(_images "")
foreach(_format IN ITEMS PNG JPEG)
  if(TARGET ${_format}::${_format})
    list(GET ${_format}_LIBRARIES 0 _file)
    string(APPEND _images "${_format} by ${_file}, ")
  else()
    string(APPEND _images "${_format} by stb_image, ")
  endif()
endforeach()
string(REGEX REPLACE ", $" "" _images "${_images}")
set(_sanitize "${DEPTHSTILL_SANITIZE}")
if(NOT _sanitize)
  set(_sanitize "none")
endif()
message(STATUS "depthstill ${PROJECT_VERSION}
   build        ${CMAKE_BUILD_TYPE}, -march=${DEPTHSTILL_MARCH}, sanitizer ${_sanitize}
   compiler     ${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}
   CUDA         ${_cuda}
   oneDNN       ${DNNL_LIBRARY}
   images       ${_images}
   ONNX         ${_onnx}
   tests        ${DEPTHSTILL_TESTS}, benchmarks ${DEPTHSTILL_BENCHMARKS}")
