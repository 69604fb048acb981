#include "engine/train/loader_note.h"

#include <gtest/gtest.h>

#include <vector>

namespace depthstill {
namespace {

// Steps of 1 s of work and `waits[epoch]` of waiting each; the notes as "epoch:step".
std::vector<std::string> notes(LoaderNote note, const std::vector<double>& waits, int steps_per_epoch,
                               double first = 0) {
  std::vector<std::string> found;
  double waiting = first, working = 0;
  for (size_t epoch = 0; epoch < waits.size(); ++epoch) {
    for (int step = 1; step <= steps_per_epoch; ++step) {
      waiting += waits[epoch];
      working += 1;
      if (note.after_step(static_cast<int64_t>(epoch), waiting, working)) {
        found.push_back(std::to_string(epoch) + ":" + std::to_string(step));
      }
    }
  }
  return found;
}

TEST(LoaderNote, OnceAnEpochAndOnlyWhenATenthIsWaiting) {
  using Found = std::vector<std::string>;
  EXPECT_EQ(notes({2, false}, {0.2, 0.2, 0.2}, 200), (Found{"0:51", "1:1", "2:1"}));
  EXPECT_EQ(notes({2, false}, {0.1, 0.1}, 200), Found{});  // 9 %
  EXPECT_EQ(notes({2, false}, {0, 0, 0.2}, 200), Found{"2:51"});
  EXPECT_EQ(notes({2, false}, {0.2}, 50), Found{});
  EXPECT_EQ(notes({2, false}, {0}, 200, 1000), Found{});                            // filling the queue at the start
  EXPECT_EQ(notes({2, false}, {0.2, 0.2, 0.2, 0.2}, 30), (Found{"1:21", "3:11"}));  // short epochs
}

TEST(LoaderNote, SaysWhatWouldHelp) {
  for (const bool packed : {false, true}) {
    LoaderNote note(3, packed);
    std::optional<std::string> line;
    for (int step = 1; step <= 51; ++step) line = note.after_step(0, step, step);
    EXPECT_EQ(line, std::string("note: 50 % of the last 50 steps was waiting for data; data.workers above 3 or ") +
                        (packed ? "a faster disk would help" : "`depthstill pack` would help"));
  }
}

}  // namespace
}  // namespace depthstill
