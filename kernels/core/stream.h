// Every kernel launcher receives a Stream first: where to run and where to find scratch memory.
#pragma once

#include <cstddef>

namespace depthstill {

// A grow-only buffer owned by the engine. The pointer stays valid until the next call; a launcher that needs several
// buffers asks once for their sum. It is aligned to 64 bytes (CPU) or 256 bytes (CUDA). Contents are undefined.
class Scratch {
 public:
  virtual ~Scratch() = default;
  virtual void* get(size_t bytes) = 0;
};

struct Stream {
  void* handle = nullptr;      // cudaStream_t on CUDA, unused on the CPU
  Scratch* scratch = nullptr;  // never null inside an op
};

}  // namespace depthstill
