#include "engine/io/torch_file.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>

#include "engine/io/pickle.h"
#include "engine/io/safetensors.h"
#include "engine/io/text_file.h"
#include "engine/io/zip.h"
#include "tests/io/allocation_watch.h"
#include "tests/io/test_files.h"

namespace depthstill {
namespace {

using testing_files::error_of;
using testing_files::expect_clear;
using testing_files::TemporaryFolder;

std::string fixture(const std::string& name) {
  return std::string(DEPTHSTILL_SOURCE_DIR "/tests/oracle/torch/") + name + ".pth";
}

// Those that PyTorch reads; the others must be refused.
const char* const kGood[] = {"types",
                             "types_legacy",
                             "views",
                             "views_legacy",
                             "training",
                             "training_legacy",
                             "parameters",
                             "parameters_legacy",
                             "protocol3",
                             "protocol4",
                             "protocol5",
                             "nested",
                             "zip64",
                             "torch1.13_types",
                             "torch1.13_views",
                             "torch1.13_views_legacy",
                             "torch1.13_training",
                             "torch1.13_parameters"};
const char* const kBad[] = {"bad_system", "bad_eval",  "bad_getattr",  "bad_module", "bad_sparse",
                            "bad_list",   "bad_empty", "bad_deflated", "bad_order"};

std::vector<std::byte> bytes_of(const WeightsFile& file, const StoredTensor& tensor) {
  std::vector<std::byte> bytes(tensor.bytes);
  file.read_bytes(tensor, bytes);
  return bytes;
}

TEST(torch_file, equals_what_pytorch_reads) {
  const SafetensorsFile expected(DEPTHSTILL_SOURCE_DIR "/tests/oracle/torch/expected.safetensors");
  for (const std::string name : kGood) {
    SCOPED_TRACE(name);
    const auto file = open_weights(fixture(name));
    size_t count = 0;
    for (const StoredTensor& tensor : expected.tensors()) {
      if (!tensor.name.starts_with(name + ":")) continue;
      ++count;
      const StoredTensor& read = file->at(tensor.name.substr(name.size() + 1));
      EXPECT_EQ(read.type, tensor.type) << tensor.name;
      EXPECT_EQ(read.shape, tensor.shape) << tensor.name;
      EXPECT_EQ(bytes_of(*file, read), bytes_of(expected, tensor)) << tensor.name;
    }
    EXPECT_GT(count, 2u);
    EXPECT_EQ(file->tensors().size(), count);
  }
}

TEST(torch_file, floats_of_any_type) {
  const TorchFile file(fixture("types"));
  const std::vector<float> exact = file.read_floats("float32"), half = file.read_floats("float16"),
                           brain = file.read_floats("bfloat16"), wide = file.read_floats("float64");
  for (size_t i = 0; i < exact.size(); ++i) {
    EXPECT_NEAR(half[i], exact[i], std::abs(exact[i]) * 0x1p-11f);
    EXPECT_NEAR(brain[i], exact[i], std::abs(exact[i]) * 0x1p-8f);
    EXPECT_EQ(wide[i], exact[i]);
  }
  expect_clear(error_of([&] { file.read_floats("int64"); }), "expected F32, F16, BF16 or F64, found I64");
}

TEST(torch_file, only_the_state_dict_is_listed) {
  const TorchFile file(fixture("training"));
  EXPECT_EQ(file.tensors().front().name, "module.conv.weight");
  EXPECT_EQ(file.find("loss"), nullptr);
  EXPECT_EQ(TorchFile(fixture("nested")).at("encoder.3.b").shape, std::vector<int64_t>{3});
}

TEST(torch_file, refuses_what_is_not_data_by_name) {
  const auto message = [](const char* name) { return error_of([&] { open_weights(fixture(name)); }); };
  const std::string why = "`: only tensors, dictionaries, numbers and text are read";
  EXPECT_EQ(message("bad_system"), fixture("bad_system") + ": refuses to construct `posix.system" + why);
  EXPECT_EQ(message("bad_eval"), fixture("bad_eval") + ": refuses to construct `__builtin__.eval" + why);
  EXPECT_EQ(message("bad_getattr"), fixture("bad_getattr") + ": refuses to construct `builtins.getattr" + why);
  EXPECT_EQ(message("bad_module"),
            fixture("bad_module") + ": refuses to construct `torch.nn.modules.linear.Linear" + why);
  EXPECT_NE(message("bad_sparse").find("refuses to construct `torch._utils._rebuild_sparse_tensor"), std::string::npos);
  expect_clear(message("bad_list"), "expected a dictionary of tensors");
  expect_clear(message("bad_empty"), "expected a dictionary of tensors, found none");
  expect_clear(message("bad_deflated"), "compressed");
  expect_clear(message("bad_order"), "expected little-endian data, found 'big'");
}

// A pickle made of instructions, with a storage "0" of eight floats beside it.
class Crafted {
 public:
  std::string error(const std::string& instructions) const {
    const std::string text = "\x80\x02" + instructions + ".";
    const auto bytes = std::as_bytes(std::span(text));
    return error_of([&] { Pickle(bytes, "crafted", [](const std::string& name) { return name == "a.b"; }); });
  }
};

TEST(pickle, damaged_instructions_are_refused) {
  const Crafted crafted;
  EXPECT_EQ(crafted.error("N"), "");
  EXPECT_EQ(crafted.error("ca\nb\n)R"), "");
  EXPECT_EQ(crafted.error("ca\nb\n)\x81}b"), "");
  const std::string cases[] = {
      "",                                    // nothing made
      "NN",                                  // two objects
      "(",                                   // an open mark
      "0",                                   // nothing to pop
      "N(0",                                 // nothing above the mark
      "t",                                   // no mark
      "\x86",                                // too few objects
      "Na",                                  // nothing to add to
      "NNa",                                 // not a list
      "}N(NNNu",                             // a key without value, on something else
      "}(NNNu",                              // a key without value
      "(NNNd",                               //
      "h\x05",                               // unknown memo entry
      std::string("Nr\xff\xff\xff\x7f", 6),  // memo index far beyond the file
      std::string("X\xff\xff\xff\x7f", 5),   // text longer than the file
      std::string("\x8d\xff\xff\xff\xff\xff\xff\xff\xff", 9),
      std::string("\x8b\xff\xff\xff\xff", 5),
      "N)R",             // a call of None
      "ca\nb\nNR",       // arguments that are no tuple
      "N}b",             // attributes of None
      "ca\nb",           // an unfinished line
      "cos\nsystem\n",   //
      "NN\x93",          // a class without a name
      "I1\n",            // protocol 0
      "\x80\x06N",       // a newer protocol
      "i__main__\nA\n",  //
      "\x82\x01",        // extension registry
      "\x97",            // out-of-band buffers
  };
  for (const std::string& instructions : cases) {
    const std::string message = crafted.error(instructions);
    EXPECT_TRUE(message.starts_with("crafted: ")) << printable(instructions) << ": " << message;
    EXPECT_EQ(message.find('\n'), std::string::npos);
  }
}

TEST(pickle, whole_numbers) {
  const auto root = [](const std::string& instructions) {
    const std::string text = "\x80\x02" + instructions + ".";
    const Pickle pickle(std::as_bytes(std::span(text)), "numbers", [](const std::string&) { return false; });
    EXPECT_EQ(pickle.size(), text.size());
    EXPECT_EQ(pickle.root().kind, PickleValue::Kind::kInt);
    return pickle.root().integer;
  };
  EXPECT_EQ(root("K\xff"), 255);
  EXPECT_EQ(root("M\x01\x80"), 32769);
  EXPECT_EQ(root("J\xfe\xff\xff\xff"), -2);
  EXPECT_EQ(root(std::string("\x8a\x00", 2)), 0);
  EXPECT_EQ(root("\x8a\x01\xff"), -1);
  EXPECT_EQ(root(std::string("\x8a\x02\xff\x00", 4)), 255);
}

// A checkpoint of the older format with one tensor "a\nb" of int64 in a storage of six; `wrapper`: the key of its state
// dict beside other things, empty: it is nothing else.
std::string stream_of(const std::string& shape, const std::string& strides, const std::string& wrapper = "") {
  const auto text = [](const std::string& value) {
    return std::string("\x8c") + static_cast<char>(value.size()) + value;
  };
  const std::string magic("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15);
  const std::string protocol("\x80\x02M\xe9\x03."), system("\x80\x02}.");
  const std::string storage = "(" + text("storage") + "ctorch\nLongStorage\n" + text("0") + text("cpu") + "K\x06NtQ";
  const std::string tensor =
      "ctorch._utils\n_rebuild_tensor_v2\n(" + storage + std::string("K\0", 2) + shape + strides + "\x89}tR";
  std::string content = "}" + text("a\nb") + tensor + "s";
  if (!wrapper.empty()) content = "}" + text("licence") + text("none") + "s" + text(wrapper) + content + "s";
  std::string file = magic + protocol + system + "\x80\x02" + content + ".\x80\x02]" + text("0") + "a.";
  const uint64_t numel = 6;
  file.append(reinterpret_cast<const char*>(&numel), sizeof(numel));
  for (int64_t i = 0; i < 6; ++i) file.append(reinterpret_cast<const char*>(&i), sizeof(i));
  return file;
}

// PyTorch leaves any number as the stride of a dimension of size 1.
TEST(torch_file, a_stride_that_is_never_taken_may_be_anything) {
  const TemporaryFolder folder;
  const std::string greatest("\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f");
  write_file(folder / "a.pth", stream_of("K\x02K\x01K\x02\x87", "K\x03" + greatest + "K\x02\x87"));
  const TorchFile file(folder / "a.pth");
  std::vector<int64_t> values(4);
  file.read_bytes(file.tensors()[0], std::as_writable_bytes(std::span(values)));
  EXPECT_EQ(values, (std::vector<int64_t>{0, 2, 3, 5}));
  std::vector<float> floats(4);
  expect_clear(error_of([&] { file.read_floats(file.tensors()[0], floats); }), "tensor 'a\\x0ab': expected F32");
}

// LightlyTrain's key.
TEST(torch_file, a_state_dict_is_found_under_its_wrapper) {
  const TemporaryFolder folder;
  write_file(folder / "a.pt", stream_of("K\x02K\x01K\x02\x87", "K\x03K\x01K\x02\x87", "train_model"));
  const TorchFile file(folder / "a.pt");
  ASSERT_EQ(file.tensors().size(), 1u);
  EXPECT_EQ(file.tensors()[0].name, "a\nb");
}

TEST(torch_file, truncated_files_are_refused) {
  const TemporaryFolder folder;
  for (const char* name : {"types", "types_legacy", "zip64"}) {
    const std::vector<uint8_t> whole = read_bytes(fixture(name));
    for (size_t length = 1; length < whole.size(); length += 1 + whole.size() / 211) {
      testing_files::write_quickly(folder / "t", std::span(whole).first(length));
      const std::string message = error_of([&] { open_weights(folder / "t"); });
      EXPECT_FALSE(message.empty()) << name << " " << length;
      EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    }
  }
}

// Byte changes, cuts, changed lengths, and pieces moved from one place or file to another.
std::vector<uint8_t> damage(const std::vector<uint8_t>& file, const std::vector<uint8_t>& other, uint64_t& state) {
  const auto next = [&](size_t n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<size_t>((state >> 33) % std::max<size_t>(n, 1));
  };
  const auto at = [](std::vector<uint8_t>& bytes, size_t i) { return bytes.begin() + static_cast<std::ptrdiff_t>(i); };
  std::vector<uint8_t> bytes = file;
  for (size_t edits = 1 + next(4); edits > 0 && bytes.size() > 16; --edits) {
    const size_t i = next(bytes.size() - 9);
    switch (next(8)) {
      case 0:
        bytes.resize(i);
        break;
      case 1:
        bytes.erase(at(bytes, i), at(bytes, i + next(std::min<size_t>(bytes.size() - i, 40))));
        break;
      case 2: {
        const size_t from = next(other.size() - 1), count = next(std::min<size_t>(other.size() - from, 200));
        bytes.insert(at(bytes, i), other.begin() + static_cast<std::ptrdiff_t>(from),
                     other.begin() + static_cast<std::ptrdiff_t>(from + count));
        break;
      }
      case 3: {  // a length or an offset
        const uint64_t values[] = {0, 1, 0xff, 0x7fffffff, 0xffffffff, 0x7fffffffffffffff, ~uint64_t{0}, next(1 << 20)};
        std::memcpy(&bytes[i], &values[next(8)], size_t{1} << next(4));
        break;
      }
      case 4:
        bytes[i] = static_cast<uint8_t>(bytes[i] + (next(2) ? 1 : 255));
        break;
      default:
        bytes[i] = static_cast<uint8_t>(next(256));
    }
  }
  return bytes;
}

// Sets the checksums of an archive's entries, so that damage reaches the readers behind them.
void fix_checksums(std::vector<uint8_t>& file) {
  const auto number = [&](size_t at, size_t bytes) {
    size_t value = 0;
    for (size_t i = bytes; i-- > 0;) value = value << 8 | (at + i < file.size() ? file[at + i] : 0);
    return value;
  };
  for (size_t at = 0; at + 46 <= file.size(); ++at) {
    if (number(at, 4) != 0x02014b50) continue;
    const size_t stored = number(at + 20, 4), local = number(at + 42, 4);
    if (local > file.size() || file.size() - local < 30) continue;
    const size_t begin = local + 30 + number(local + 26, 2) + number(local + 28, 2);
    if (begin > file.size() || stored > file.size() - begin) continue;
    const auto crc = static_cast<uint32_t>(crc32_z(0, file.data() + begin, stored));
    std::memcpy(&file[at + 16], &crc, sizeof(crc));
    if (number(local + 14, 4) != 0) std::memcpy(&file[local + 14], &crc, sizeof(crc));
  }
}

TEST(torch_file, mutations) {
  std::vector<std::vector<uint8_t>> files;
  for (const char* name : kGood) files.push_back(read_bytes(fixture(name)));
  for (const char* name : kBad) files.push_back(read_bytes(fixture(name)));
  const TemporaryFolder folder;
  const std::string path = folder / "m";
  uint64_t state = 20260101;
  int refused = 0;
  constexpr int kCount = 10000;
  for (int i = 0; i < kCount; ++i) {
    const size_t which = static_cast<size_t>(i) % files.size();
    std::vector<uint8_t> bytes =
        damage(files[which], files[(which + static_cast<size_t>(i) / 7) % files.size()], state);
    if (i % 8 != 0) fix_checksums(bytes);
    testing_files::write_quickly(path, bytes);
    const AllocationWatch watch;
    try {
      const auto file = open_weights(path);
      for (const StoredTensor& tensor : file->tensors()) bytes_of(*file, tensor);
    } catch (const Error& error) {
      ++refused;
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    }
    ASSERT_LE(watch.peak_bytes(), Pickle::kBytesPerByte * bytes.size() + 65536) << "mutation " << i;
  }
  EXPECT_GT(refused, kCount / 4);
  EXPECT_LT(refused, kCount);
}

}  // namespace
}  // namespace depthstill
