// With tools/baseline.cpp, compiled for instructions that processors do not have: main() is never reached.
#include <cstdio>

int main() {
  std::puts("started");
  return 0;
}
