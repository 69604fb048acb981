#include "kernels/simt/libraries/simulation.h"

namespace depthstill::simt {
namespace {

int executions_to_fail = 0;

}  // namespace

void fail_next_executions(int count) { executions_to_fail = count; }

bool execution_fails() {
  if (executions_to_fail == 0) return false;
  --executions_to_fail;
  return true;
}

}  // namespace depthstill::simt
