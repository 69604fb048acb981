// The CPU's dpm and dpm_grad (dpm.h) for some of the map's rows, whose logits alone are in memory (dpm_head.cpp).
#pragma once

#include "kernels/dpm/dpm.h"

namespace depthstill::cpu {

// A RowRange is a part of the N * H rows of all images.
struct RowRange {
  int64_t begin = 0, end = 0;
  int64_t count() const { return end - begin; }
};

// logits (rows, W, channels) of these rows; teacher and maps are whole. row_sums (N * H, 2), or null without a teacher:
// the rows' {sum of kl, counted pixels}; maps.result is dpm_finish's.
template <class T>
void dpm_rows(Stream stream, const DpmProblem& problem, RowRange rows, const T* logits, const float* teacher,
              const DpmMaps& maps, double* row_sums);
// dpm's result from the sums of all rows, added up in order: the same for any number of threads and any ranges.
void dpm_finish(int64_t rows, const double* row_sums, float* result);
template <class T>
void dpm_grad_rows(Stream stream, const DpmProblem& problem, RowRange rows, const DpmGradientMaps& maps, T* logits);

}  // namespace depthstill::cpu
