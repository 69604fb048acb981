// These tests say where lines go that no caller returns.
#include "kernels/core/messages.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace depthstill {
namespace {

TEST(Messages, GoToTheSinkThatWasSetLast) {
  send_message("nobody listens");
  std::vector<std::string> lines;
  set_message_sink([&](const std::string& line) { lines.push_back(line); });
  send_message("plan ", 3, ": ", 0.5, " ms");
  EXPECT_EQ(lines, std::vector<std::string>{"plan 3: 0.5 ms"});
  set_message_sink([](const std::string&) { fail("the sink is broken"); });
  send_message("dropped, as a destructor may have sent it");
  set_message_sink(nullptr);
  send_message("nobody listens again");
  EXPECT_EQ(lines.size(), 1u);
}

}  // namespace
}  // namespace depthstill
