#include "sample.h"

namespace depthstill::cpu {

template <class T>
void report_width(Stream, T* op, T* inlined) {
  *op = static_cast<T>(DS_COMPILED_FOR);
  *inlined = static_cast<T>(compiled_for());
}
template void report_width(Stream, float*, float*);

void report_width(Stream stream, int* op, int* inlined) {
  float results[2];
  report_width(stream, results, results + 1);
  *op = static_cast<int>(results[0]), *inlined = static_cast<int>(results[1]);
}

}  // namespace depthstill::cpu
