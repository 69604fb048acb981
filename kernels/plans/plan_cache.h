// Measured choices on disk: which way of computing something was the fastest on this device. One small text file per
// device and library version; a first line names both and our own version, every further one is "key <tab> record".
// What does not read as such is ignored, and so is a file of another version.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>

namespace depthstill::plans {

// Choices weigh the libraries' kernels against ours. This number is to be raised with every change of a kernel of ours
// that competes (bias and activation, batch norm, sums, casts, the fused head) or of the list of candidates.
inline constexpr int kPlansVersion = 2;

class PlanCache {
 public:
  // `identity` is everything that choices depend on besides their key, e.g. the GPU's name and cuDNN's version. With an
  // empty folder nothing is read or written.
  PlanCache(const std::string& folder, const std::string& identity);

  std::optional<std::string> find(const std::string& key) const;
  // Writes the file as well, together with what another process has added to it meanwhile, as a whole or not at all. A
  // folder that cannot be written is no error: the next run measures again. Neither text may have tabs or line breaks.
  void put(const std::string& key, const std::string& record);

  const std::string& file() const { return file_; }

 private:
  std::map<std::string, std::string> read() const;
  void write() const;

  std::string file_, header_;
  mutable std::mutex mutex_;
  std::map<std::string, std::string> records_;
};

}  // namespace depthstill::plans
