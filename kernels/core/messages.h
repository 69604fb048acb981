// Lines that no caller returns or throws: choices that were asked to be logged, and failures in destructors. Nothing
// below the tools prints; a program that wants these lines says where they go.
#pragma once

#include <functional>
#include <string>

#include "kernels/core/error.h"

namespace depthstill {

using MessageSink = std::function<void(const std::string& line)>;

// The sink of the process, at first none: then lines are dropped. A sink is called by one thread at a time and must not
// send a message itself.
void set_message_sink(MessageSink sink);

namespace detail {
void hand_to_sink(const std::string& line);
}

// Hands the concatenated parts to the sink. What the sink throws is dropped, as destructors call this.
template <class... Parts>
void send_message(const Parts&... parts) noexcept {
  try {
    detail::hand_to_sink(concat_text(parts...));
  } catch (...) {  // nobody is left to be told
  }
}

}  // namespace depthstill
