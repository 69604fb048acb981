// Students in safetensors files: the metadata say which network it is, so that a file is enough to predict with.
#pragma once

#include <memory>
#include <string>

#include "engine/checkpoint.h"
#include "models/student.h"

namespace depthstill {

// Sizes that the network was trained to see, relative to the image: 0.5 where a run halved its images.
struct InputScale {
  double height = 1, width = 1;
};

// For save_state(): "model", "head", "bins", "min_depth", "max_depth", "input_scale_height", "input_scale_width".
Metadata student_metadata(const Student& student, const InputScale& scale);

struct LoadedStudent {
  std::unique_ptr<Student> student;  // in eval mode, on the device
  InputScale scale;
};

// Reads a whole student. A file without our metadata, such as a converted TIE-KD checkpoint, is taken for `model` with
// the default bins and range; with metadata, `model` must be empty or equal.
LoadedStudent load_student(const std::string& path, const std::string& model, Device device);

// Only the weights, into a student of the same architecture; layers that the published code builds and never runs are
// passed over, as are tensors of a training run that are not the network's.
void load_student_weights(Student& student, const SafetensorsFile& file);

}  // namespace depthstill
