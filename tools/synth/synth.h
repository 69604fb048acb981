// Writes a procedural data set in the KITTI layout: images, exact depth, and a simulated teacher's maps. It is what the
// demo trains on and what tests can make anywhere; it replaces no real data.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/io/image.h"
#include "engine/io/map_file.h"
#include "engine/random.h"

namespace depthstill {

enum class SynthScene { kStreet, kIndoor, kMixed };  // kMixed: in turn

struct SynthOptions {
  std::string out;  // folder: missing, empty, or an earlier data set of synthesize(), which is written anew
  int train = 40, validation = 10, test = 0;
  uint64_t seed = 1;
  ImageSize size{1242, 375};  // the KITTI crop needs at least 1216x352; smaller sets go without it
  SynthScene scene = SynthScene::kStreet;
  bool sparse = false;  // ground truth as a 64-beam scanner would see it, about 5 % of the pixels
  std::function<void(int done, int total)> progress;  // several threads call it; it may be empty
};

// Layout below `out` (list lines are "image depth focal"):
//   train.txt, val.txt, test.txt                                  the last one if there are test frames
//   raw/synth/<drive>_sync/image_02/data/NNNNNNNNNN.png           8-bit RGB
//   gt/<drive>_sync/proj_depth/groundtruth/image_02/NNNNNNNNNN.png  16 bits, v / 256 m, 0 = none or sky
//   teacher/, teacher_val/, teacher_test/
//                            TIE-KD form: flat names, 16 bits, v * 80 / 65535 m, cropped to 352x1216 where images allow
//   README.txt               says that all of it is simulated, and that the folder is ours to write anew
// Every frame is a scene of its own, drawn from random numbers that no other frame of any list shares.
// Throws UsageError, before anything is written, for a folder that holds something else. The files depend on the
// options alone, not on the number of threads.
void synthesize(const SynthOptions& options);

// Simulates what a teacher network might give for `depth` (0 = sky): blurred edges, a smooth scale error, far distances
// pulled in, held to at most 80 m.
DepthMap simulate_teacher(const DepthMap& depth, Philox& random);

}  // namespace depthstill
