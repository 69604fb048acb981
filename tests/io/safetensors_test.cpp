#include "engine/io/safetensors.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <ctime>
#include <limits>

#include "engine/io/text_file.h"
#include "tests/io/allocation_watch.h"
#include "tests/io/test_files.h"

namespace depthstill {
namespace {

using testing_files::error_of;
using testing_files::expect_clear;
using testing_files::TemporaryFolder;
using testing_files::try_mutations;

std::vector<uint8_t> file_bytes(const std::string& header, size_t data_bytes) {
  std::vector<uint8_t> file(8);
  const uint64_t length = header.size();
  std::memcpy(file.data(), &length, 8);
  file.insert(file.end(), header.begin(), header.end());
  for (size_t i = 0; i < data_bytes; ++i) file.push_back(static_cast<uint8_t>(i));
  return file;
}

std::string error_for(const TemporaryFolder& folder, const std::vector<uint8_t>& file) {
  write_file(folder / "w.safetensors", std::span<const uint8_t>(file));
  return error_of([&] { SafetensorsFile opened(folder / "w.safetensors"); });
}

const char* kTwo =
    R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},)"
    R"("b":{"dtype":"BF16","shape":[3],"data_offsets":[8,14]},"none":{"dtype":"I64","shape":[0,5],"data_offsets":[14,14]}})";

TEST(safetensors, reads_what_is_there) {
  const TemporaryFolder folder;
  ASSERT_EQ(error_for(folder, file_bytes(kTwo, 14)), "");
  const SafetensorsFile file(folder / "w.safetensors");
  ASSERT_EQ(file.tensors().size(), 3u);
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(file.at("a").shape, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(file.at("b").type, StoredType::kBf16);
  EXPECT_EQ(file.at("none").numel(), 0);
  EXPECT_EQ(file.find("c"), nullptr);
  EXPECT_EQ(file.bytes(file.at("b"))[0], std::byte{8});
  expect_clear(error_of([&] { file.at("c"); }), "expected a tensor 'c'");
  EXPECT_EQ(file.read_floats("b").size(), 3u);
}

TEST(safetensors, round_trip) {
  const TemporaryFolder folder;
  const std::vector<float> a = {1.5f, -2, 3, 4, 5, 6};
  const std::vector<uint16_t> b = {0x3f80, 0xc000}, half = {0x3c00, 0xc000};
  const int64_t step = 1234567890123;
  const TensorToStore tensors[] = {{"z.weight", StoredType::kF32, {2, 3}, a.data()},
                                   {"b", StoredType::kBf16, {2}, b.data()},
                                   {"half", StoredType::kF16, {2}, half.data()},
                                   {"step", StoredType::kI64, {}, &step},
                                   {"empty", StoredType::kU8, {0}, nullptr}};
  write_safetensors(folder / "w.safetensors", tensors, {{"model", "mobilenet_unet"}, {"quote", "a \"b\"\n\xc3\xa9"}});
  EXPECT_EQ(folder.file_count(), 1u);
  const SafetensorsFile file(folder / "w.safetensors");
  EXPECT_EQ(file.metadata().at("quote"), "a \"b\"\n\xc3\xa9");
  EXPECT_EQ(file.read_floats("z.weight"), a);
  EXPECT_EQ(file.read_floats("b"), (std::vector<float>{1, -2}));
  EXPECT_EQ(file.read_floats("half"), (std::vector<float>{1, -2}));
  int64_t back = 0;
  std::memcpy(&back, file.bytes(file.at("step")).data(), 8);
  EXPECT_EQ(back, step);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(file.bytes(file.at("z.weight")).data()) % 64, 0u);
  expect_clear(error_of([&] { file.read_floats("step"); }), "expected F32, F16, BF16 or F64, found I64");
}

TEST(safetensors, floats_are_finite) {
  const TemporaryFolder folder;
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const float wide[] = {1, 2, std::numeric_limits<float>::quiet_NaN(), kInf};
  const uint16_t half[] = {0x3c00, 0x7e00, 0xfc00, 0x3c00}, brain[] = {0x3f80, 0x3f80, 0x3f80, 0xff80};
  const double doubles[] = {1e300, 1, 1, 1};  // finite, but not as a float
  const TensorToStore tensors[] = {{"f32", StoredType::kF32, {2, 2}, wide},
                                   {"f16", StoredType::kF16, {2, 2}, half},
                                   {"bf16", StoredType::kBf16, {2, 2}, brain},
                                   {"f64", StoredType::kF64, {2, 2}, doubles}};
  const std::string path = folder / "w.safetensors";
  write_safetensors(path, tensors);
  const SafetensorsFile file(path);
  const auto error = [&](const char* name) { return error_of([&] { file.read_floats(name); }); };
  EXPECT_EQ(error("f32"), path + ": tensor 'f32' (2, 2): expected finite weights, found nan as element 2");
  EXPECT_EQ(error("f16"), path + ": tensor 'f16' (2, 2): expected finite weights, found nan as element 1");
  EXPECT_EQ(error("bf16"), path + ": tensor 'bf16' (2, 2): expected finite weights, found -inf as element 3");
  EXPECT_EQ(error("f64"), path + ": tensor 'f64' (2, 2): expected finite weights, found inf as element 0");
}

TEST(safetensors, narrow_floats_stay_finite) {
  uint16_t to[2] = {};
  const auto error = [&](std::array<float, 2> values, StoredType type) {
    return error_of([&] { narrow_floats(values, type, to, "w: tensor 'a'"); });
  };
  EXPECT_EQ(error({1, -65504}, StoredType::kF16), "");
  EXPECT_EQ(error({1, 3e38f}, StoredType::kBf16), "");
  EXPECT_EQ(error({1, -65520}, StoredType::kF16), "w: tensor 'a': expected values that F16 can hold, found -65520");
  EXPECT_NE(error({std::numeric_limits<float>::quiet_NaN(), 0}, StoredType::kBf16), "");
}

TEST(safetensors, every_truncation_is_refused) {
  const TemporaryFolder folder;
  const std::vector<uint8_t> file = file_bytes(kTwo, 14);
  for (size_t length = 0; length < file.size(); ++length) {
    const std::string message = error_for(folder, {file.begin(), file.begin() + static_cast<std::ptrdiff_t>(length)});
    ASSERT_FALSE(message.empty()) << length;
    expect_clear(message, "w.safetensors: ");
  }
  std::vector<uint8_t> longer = file;
  longer.push_back(0);
  expect_clear(error_for(folder, longer), "expected 14 bytes of data, found 15");
}

TEST(safetensors, bad_headers_are_refused) {
  const TemporaryFolder folder;
  const auto one = [](const std::string& entry) { return R"({"a":{)" + entry + "}}"; };
  const std::string cases[] = {
      one(R"("dtype":"F31","shape":[2],"data_offsets":[0,8])"),
      one(R"("dtype":4,"shape":[2],"data_offsets":[0,8])"),
      one(R"("dtype":"F32","shape":[3],"data_offsets":[0,8])"),
      one(R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])"),
      one(R"("dtype":"F32","shape":[2.0],"data_offsets":[0,8])"),
      one(R"("dtype":"F32","shape":"2","data_offsets":[0,8])"),
      one(R"("dtype":"F32","shape":[2],"data_offsets":[0,8,9])"),
      one(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])"),
      one(R"("dtype":"F32","shape":[2],"data_offsets":[8,16])"),
      one(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])"),
      one(R"("dtype":"F32","shape":[2],"data_offsets":[0,8],"more":1)"),
      one(R"("dtype":"F32","shape":[2],"dtype":"F32","data_offsets":[0,8])"),
      one(R"("dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8])"),
      one(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8])"),
      one(R"("dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8])"),
      one(R"("dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,2],"data_offsets":[0,8])"),
      R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})",
      R"({"a":{"dtype":"U8","shape":[6],"data_offsets":[0,6]},"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})",
      R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})",
      R"({"__metadata__":{"a":1},"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})",
      R"({"__metadata__":[]})",
      R"([1])",
      R"({"a":1})",
      R"({"a":{"dtype")",
      "{",
      "",
      std::string(300, '['),
      "{" + std::string(200000, '{'),
  };
  for (const std::string& header : cases) {
    const std::string message = error_for(folder, file_bytes(header, 8));
    ASSERT_FALSE(message.empty()) << header.substr(0, 200);
    expect_clear(message, "w.safetensors: ");
  }
  std::vector<uint8_t> huge = file_bytes("{}", 8);
  std::memset(huge.data(), 0xff, 8);
  expect_clear(error_for(folder, huge), "header within");
  expect_clear(error_of([&] { SafetensorsFile opened(folder.path()); }), "found a folder");
  expect_clear(error_of([&] { SafetensorsFile opened(folder / "none"); }), "expected a readable file");
}

TEST(safetensors, what_is_wrong_is_named) {
  const TemporaryFolder folder;
  const auto message = [&](const std::string& header) { return error_for(folder, file_bytes(header, 8)); };
  const auto ends = [&](const std::string& header, const std::string& end) {
    EXPECT_TRUE(message(header).ends_with(end)) << message(header);
  };
  ends(R"({"a":1})", "w.safetensors: tensor 'a': expected an object, found a number");
  ends(R"({"a":{"shape":1}})", "tensor 'a': expected an array as shape, found a number");
  ends(R"({"a":{"dtype":[]}})", "tensor 'a': expected text as dtype, found an array");
  ends(R"({"a":{"shape":[[1]]}})", "tensor 'a': expected whole numbers >= 0 in shape, found an array");
  ends(R"({"a":{"shape":[2],"shape":[2]}})", "expected each header key once, found 'shape' twice");
  ends(R"({"a":{"shape":[2]}})", "tensor 'a': expected the keys dtype, shape and data_offsets, found fewer");
  ends(R"({"__metadata__":3})", "expected __metadata__ to be an object, found a number");
  ends(R"({"__metadata__":{"k":"1","k":"2"}})", "expected each header key once, found 'k' twice");
  ends(R"({"__metadata__":{},"__metadata__":{}})", "expected each header key once, found '__metadata__' twice");
  const std::string none = R"(:{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  EXPECT_TRUE(error_for(folder, file_bytes(R"({"a")" + none + R"(,"b")" + none + R"(,"a")" + none + "}", 0))
                  .ends_with("expected each tensor name once, found 'a' twice"));
}

// Seconds of CPU time for a header of `count` tensors.
double time_of_header(const TemporaryFolder& folder, int count) {
  std::string header = "{";
  for (int i = 0; i < count; ++i)
    header += concat_text(i ? "," : "", "\"t", i, R"(":{"dtype":"F32","shape":[0],"data_offsets":[0,0]})");
  const std::vector<uint8_t> file = file_bytes(header + "}", 0);
  testing_files::write_quickly(folder / "many", file);
  const AllocationWatch watch;
  const std::clock_t begin = std::clock();
  EXPECT_EQ(SafetensorsFile(folder / "many").tensors().size(), static_cast<size_t>(count));
  EXPECT_LE(watch.peak_bytes(), size_t{64} << 20);
  return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
}

TEST(safetensors, headers_take_time_and_memory_in_proportion) {
  const TemporaryFolder folder;
  const double quarter = time_of_header(folder, 25000), whole = time_of_header(folder, 100000);
  EXPECT_LT(whole, 10 * quarter);  // in proportion it is 4 times, as a square 16 times
  std::string deep = "{";
  for (int i = 0; i < 1000000; ++i) deep += "\"a\":{";
  const std::string cases[] = {deep, "{\"a\":" + std::string(5000000, '['), "{" + std::string(200000, '{')};
  for (const std::string& header : cases) {
    testing_files::write_quickly(folder / "deep", file_bytes(header, 0));
    const AllocationWatch watch;
    expect_clear(error_of([&] { SafetensorsFile opened(folder / "deep"); }), "deep: ");
    EXPECT_LE(watch.peak_bytes(), size_t{1} << 20);
  }
}

TEST(safetensors, mutations) {
  const TemporaryFolder folder;
  try_mutations(file_bytes(kTwo, 14), 3000, [&](const std::vector<uint8_t>& damaged) {
    testing_files::write_quickly(folder / "m", damaged);
    const SafetensorsFile file(folder / "m");
    for (const StoredTensor& tensor : file.tensors()) {
      volatile std::byte sum{};
      for (const std::byte b : file.bytes(tensor)) sum = sum ^ b;
    }
  });
}

TEST(safetensors, real_file) {
  const auto set = testing_files::find_data_set("mobilenetv2_imagenet");
  if (!set) GTEST_SKIP() << "skipped: no mobilenetv2_imagenet";
  const SafetensorsFile file(*set + "/mobilenet_v2_1.0_imagenet_bnfolded_full_f32.safetensors");
  EXPECT_EQ(file.at("features.0.0.weight").shape, (std::vector<int64_t>{32, 3, 3, 3}));
  EXPECT_EQ(file.read_floats("features.0.0.bias").size(), 32u);
}

}  // namespace
}  // namespace depthstill
