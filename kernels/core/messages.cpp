#include "kernels/core/messages.h"

#include <mutex>
#include <utility>

namespace depthstill {
namespace {

struct Sink {
  std::mutex mutex;
  MessageSink call;
};

// Destructors of static objects may send messages, so the sink is never destroyed.
Sink& sink() {
  static auto& the_sink = *new Sink;
  return the_sink;
}

}  // namespace

void set_message_sink(MessageSink call) {
  const std::lock_guard lock(sink().mutex);
  sink().call = std::move(call);
}

void detail::hand_to_sink(const std::string& line) {
  const std::lock_guard lock(sink().mutex);
  if (sink().call) sink().call(line);
}

}  // namespace depthstill
