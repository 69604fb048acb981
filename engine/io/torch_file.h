// Checkpoints as torch.save writes them: zip archives (PyTorch 1.6 and newer) and the older format of one stream. The
// state dict is looked for where training scripts put it (under "model", "state_dict", ...); what lies beside it, as an
// optimiser's state, is passed over. Nothing in a checkpoint is executed (engine/io/pickle.h).
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/io/mapped_file.h"
#include "engine/io/pickle.h"
#include "engine/io/weights_file.h"

namespace depthstill {

class TorchFile final : public WeightsFile {
 public:
  explicit TorchFile(const std::string& path);
  static bool recognises(const std::string& path);  // judges by the first bytes

  void read_bytes(const StoredTensor& tensor, std::span<std::byte> to) const override;

 private:
  // A tensor is a view of a storage, which others may share.
  struct View {
    std::span<const std::byte> storage;  // bytes from the view's first element on
    std::vector<int64_t> strides;        // strides in elements
  };
  using Storages = std::map<std::string, std::span<const std::byte>, std::less<>>;  // bytes by key

  void read_archive();
  void read_stream();

  MappedFile file_;
  std::optional<Pickle> pickle_;
  Storages storages_;
  std::vector<View> views_;  // views by the tensors' handles
  friend class TensorCollector;
};

}  // namespace depthstill
