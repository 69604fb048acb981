// .npy, .pfm and the depth maps on top of them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "engine/io/half.h"
#include "engine/io/map_file.h"
#include "engine/io/npy.h"
#include "engine/io/pfm.h"
#include "engine/io/png_text.h"
#include "engine/io/text_file.h"
#include "tests/io/test_files.h"

namespace depthstill {
namespace {

using testing_files::error_of;
using testing_files::expect_clear;
using testing_files::TemporaryFolder;
using testing_files::try_mutations;
using testing_files::write_quickly;

std::vector<uint8_t> npy_bytes(const std::string& header, const std::vector<uint8_t>& data, uint8_t version = 1) {
  std::vector<uint8_t> file = {0x93, 'N', 'U', 'M', 'P', 'Y', version, 0};
  file.push_back(static_cast<uint8_t>(header.size() & 0xff));
  file.push_back(static_cast<uint8_t>(header.size() >> 8));
  if (version > 1) file.insert(file.end(), {0, 0});
  file.insert(file.end(), header.begin(), header.end());
  file.insert(file.end(), data.begin(), data.end());
  return file;
}

std::string dictionary(const std::string& descr, const std::string& shape) {
  return "{'descr': '" + descr + "', 'fortran_order': False, 'shape': " + shape + ", }\n";
}

template <class T>
std::vector<uint8_t> raw(std::initializer_list<T> values) {
  std::vector<uint8_t> bytes(values.size() * sizeof(T));
  std::memcpy(bytes.data(), values.begin(), bytes.size());
  return bytes;
}

TEST(npy, every_dtype) {
  const std::vector<float> expected = {1, 2, 100};
  const std::pair<std::string, std::vector<uint8_t>> cases[] = {
      {"<f4", raw<float>({1, 2, 100})},
      {"<f8", raw<double>({1, 2, 100})},
      {"<f2", raw<uint16_t>({0x3c00, 0x4000, 0x5640})},
      {"|u1", raw<uint8_t>({1, 2, 100})},
      {"|i1", raw<int8_t>({1, 2, 100})},
      {"<u2", raw<uint16_t>({1, 2, 100})},
      {"<i2", raw<int16_t>({1, 2, 100})},
      {"<u4", raw<uint32_t>({1, 2, 100})},
      {"<i4", raw<int32_t>({1, 2, 100})},
      {"<u8", raw<uint64_t>({1, 2, 100})},
      {"<i8", raw<int64_t>({1, 2, 100})},
  };
  for (const auto& [descr, data] : cases) {
    for (const uint8_t version : {uint8_t{1}, uint8_t{2}, uint8_t{3}}) {
      const FloatArray array = decode_npy(npy_bytes(dictionary(descr, "(3,)"), data, version), "a.npy");
      EXPECT_EQ(array.shape, std::vector<int64_t>{3}) << descr;
      EXPECT_EQ(array.values, expected) << descr;
    }
  }
}

std::vector<uint8_t> reversed(std::vector<uint8_t> bytes, size_t element_bytes) {
  for (size_t at = 0; at < bytes.size(); at += element_bytes) {
    std::reverse(bytes.begin() + static_cast<std::ptrdiff_t>(at),
                 bytes.begin() + static_cast<std::ptrdiff_t>(at + element_bytes));
  }
  return bytes;
}

TEST(npy, big_endian) {
  const std::vector<float> expected = {1, 2, 100};
  const std::pair<std::string, std::vector<uint8_t>> cases[] = {
      {">f2", reversed(raw<uint16_t>({0x3c00, 0x4000, 0x5640}), 2)},
      {">f4", reversed(raw<float>({1, 2, 100}), 4)},
      {">f8", reversed(raw<double>({1, 2, 100}), 8)},
      {">i2", reversed(raw<int16_t>({1, 2, 100}), 2)},
      {">u4", reversed(raw<uint32_t>({1, 2, 100}), 4)},
      {">i8", reversed(raw<int64_t>({1, 2, 100}), 8)}};
  for (const auto& [descr, data] : cases) {
    EXPECT_EQ(decode_npy(npy_bytes(dictionary(descr, "(3,)"), data), "a.npy").values, expected) << descr;
  }
}

std::string fortran(const std::string& descr, const std::string& shape) {
  return "{'descr': '" + descr + "', 'fortran_order': True, 'shape': " + shape + ", }\n";
}

TEST(npy, fortran_order) {
  const std::vector<uint8_t> data = raw<float>({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
  const auto values = [&](const char* shape) {
    return decode_npy(npy_bytes(fortran("<f4", shape), data), "a.npy").values;
  };
  EXPECT_EQ(values("(12,)"), (std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}));
  EXPECT_EQ(values("(3, 4)"), (std::vector<float>{0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11}));
  EXPECT_EQ(values("(2, 3, 2)"), (std::vector<float>{0, 6, 2, 8, 4, 10, 1, 7, 3, 9, 5, 11}));
}

TEST(npy, halves) {
  const std::pair<uint16_t, float> cases[] = {
      {0x0000, 0.0f},     {0x8000, -0.0f}, {0x0001, 0x1p-24f}, {0x03ff, 1023 * 0x1p-24f},
      {0x0400, 0x1p-14f}, {0xbc00, -1.0f}, {0x7bff, 65504.0f}, {0x3555, 0.333251953125f}};
  for (const auto& [bits, value] : cases) EXPECT_EQ(half_to_float(bits), value) << bits;
  for (const auto& [bits, value] : cases) EXPECT_EQ(float_to_half(value), bits) << value;
  EXPECT_TRUE(std::signbit(half_to_float(0x8000)));
  EXPECT_TRUE(std::isinf(half_to_float(0x7c00)));
  EXPECT_TRUE(std::isnan(half_to_float(0x7e01)));
  const std::pair<float, uint16_t> rounded[] = {
      {1 + 0x1p-11f, 0x3c00}, {1 + 0x3p-11f, 0x3c02}, {1 + 0x1.1p-11f, 0x3c01}, {2 - 0x1p-12f, 0x4000},
      {0x1p-25f, 0x0000},     {0x1.1p-25f, 0x0001},   {-0x3p-25f, 0x8002},      {0x1p-14f - 0x1p-25f, 0x0400},
      {65519.9f, 0x7bff},     {65520.0f, 0x7c00},     {-INFINITY, 0xfc00},      {1e-30f, 0x0000}};
  for (const auto& [value, bits] : rounded) EXPECT_EQ(float_to_half(value), bits) << value;
  EXPECT_TRUE(std::isnan(half_to_float(float_to_half(NAN))));
}

TEST(npy, bad_headers_are_refused) {
  const std::vector<uint8_t> data = raw<float>({1, 2, 3});
  const std::string cases[] = {
      dictionary("=f4", "(3,)"),
      dictionary("|O", "(3,)"),
      dictionary("<c8", "(3,)"),
      dictionary("<f4", "(4,)"),
      dictionary("<f4", "(2,)"),
      dictionary("<f4", "(-3,)"),
      dictionary("<f4", "(3.0,)"),
      dictionary("<f4", "(3"),
      dictionary("<f4", "(4294967296, 4294967296, 4294967296, 3)"),
      dictionary("<f4", "(99999999999999999999,)"),
      "{'descr': '<f4', 'fortran_order': Maybe, 'shape': (3,), }\n",
      "{'descr': '<f4', 'shape': (3,), }\n",
      "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (3,), }\n",
      "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), 'more': 1}\n",
      "{'descr': '<f4', 'fortran_order': False, 'shape': (3,)} and more\n",
      "{'descr': '<f4",
      "[]",
      "",
  };
  for (const std::string& header : cases) {
    const std::string message = error_of([&] { decode_npy(npy_bytes(header, data), "a.npy"); });
    ASSERT_FALSE(message.empty()) << header;
    expect_clear(message, "a.npy: ");
  }
  expect_clear(error_of([&] { decode_npy(npy_bytes(dictionary("<f4", "(3,)"), data, 4), "a.npy"); }), "version");
}

TEST(npy, truncations_and_mutations) {
  const std::vector<uint8_t> file = npy_bytes(dictionary("<f4", "(1, 3)"), raw<float>({1, 2, 3}));
  for (size_t length = 0; length < file.size(); ++length) {
    EXPECT_THROW(decode_npy(std::span(file.data(), length), "a.npy"), Error) << length;
  }
  try_mutations(file, 20000, [](const auto& damaged) { decode_npy(damaged, "m"); });
}

TEST(npy, writer_round_trip_and_alignment) {
  const TemporaryFolder folder;
  const std::vector<float> values = {1.5f, -2, 3, std::numeric_limits<float>::quiet_NaN(), 0, 6};
  const int64_t shape[] = {2, 3};
  write_npy(folder / "a.npy", shape, values);
  const FloatArray back = read_npy(folder / "a.npy");
  EXPECT_EQ(back.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(std::memcmp(back.values.data(), values.data(), sizeof(float) * 6), 0);
  EXPECT_EQ((read_bytes(folder / "a.npy").size() - 24) % 64, 0u);
}

TEST(npy, real_files) {
  const auto set = testing_files::find_data_set("fastdepth_nyu_sample");
  if (!set) GTEST_SKIP() << "skipped: no fastdepth_nyu_sample";
  for (const char* file : {"depth.npy", "pred.npy"}) {
    const DepthMap depth = read_map(*set + "/" + file, {});
    EXPECT_EQ(depth.size(), (ImageSize{224, 224}));
  }
}

TEST(pfm, both_byte_orders_and_row_order) {
  const float values[] = {1, 2, 3, 4, 5, 6};
  for (const char* scale : {"-1.0", "1.0", "-0.25"}) {
    const std::string header = std::string("Pf\n3 2\n") + scale + "\n";
    std::vector<uint8_t> file(header.begin(), header.end());
    for (float value : values) {
      uint32_t bits = std::bit_cast<uint32_t>(value);
      if (scale[0] != '-') bits = __builtin_bswap32(bits);
      for (int i = 0; i < 4; ++i) file.push_back(static_cast<uint8_t>(bits >> (8 * i)));
    }
    const FloatMap map = decode_pfm(file, "a.pfm");
    EXPECT_EQ(map.values, (std::vector<float>{4, 5, 6, 1, 2, 3}));
    for (size_t length = 0; length < file.size(); ++length) {
      EXPECT_THROW(decode_pfm(std::span(file.data(), length), "a.pfm"), Error) << length;
    }
    try_mutations(file, 5000, [](const auto& damaged) { decode_pfm(damaged, "m"); });
  }
}

TEST(pfm, refusals) {
  const auto message = [](const std::string& text) {
    return error_of([&] { decode_pfm(std::vector<uint8_t>(text.begin(), text.end()), "a.pfm"); });
  };
  expect_clear(message("PF\n1 1\n-1\n            "), "one channel");
  expect_clear(message("Pf\n0 1\n-1\n"), "1 to 16384");
  expect_clear(message("Pf\n1 1\n0\n    "), "not 0");
  expect_clear(message("Pf\n1 1\nnan\n    "), "not 0");
  expect_clear(message("Pf\n1 1\n-1\n     "), "expected 4 bytes");
}

DepthMap small_depth() { return {3, 2, {1.0f, 2.5f, 0.0f, 79.0f, 0.25f, 7.125f}}; }

TEST(map_file, round_trips) {
  const TemporaryFolder folder;
  for (const char* name : {"a.npy", "a.pfm", "a.PNG"}) {
    const MapFormat format{1.0 / 256, MapFormat::Unusable::kRefused};
    write_map(folder / name, small_depth(), format);
    const DepthMap back = read_map(folder / name, format);
    EXPECT_EQ(back.size(), (ImageSize{3, 2}));
    EXPECT_EQ(back.values, small_depth().values) << name;
  }
}

// A large map need not be in memory whole: any rows, in any order, are those of the whole map.
TEST(map_file, rows_are_those_of_the_whole_map) {
  const TemporaryFolder folder;
  DepthMap map{5, 7, {}};
  for (int i = 0; i < 35; ++i) map.values.push_back(static_cast<float>(i) / 4.0f);
  for (const char* name : {"a.npy", "a.pfm", "a.png"}) {
    SCOPED_TRACE(name);
    const MapFormat format{1.0 / 256, MapFormat::Unusable::kRefused};
    write_map(folder / name, map, format);
    const MapReader reader(folder / name, format);
    EXPECT_EQ(reader.size(), (ImageSize{5, 7}));
    for (int last = 7; last >= 0; --last) {
      for (int first = 0; first <= last; ++first) {
        std::vector<float> rows(static_cast<size_t>(5 * (last - first)));
        reader.read_rows(first, last, rows.data());
        EXPECT_EQ(rows, std::vector<float>(map.values.begin() + 5 * first, map.values.begin() + 5 * last));
      }
    }
    float none = 0;
    expect_clear(error_of([&] { reader.read_rows(3, 8, &none); }), "expected rows within");
  }
}

// What numpy.save writes of a transposed, a column-major, a big-endian or a batched array is the same map.
TEST(map_file, every_form_that_numpy_writes) {
  const TemporaryFolder folder;
  const std::vector<double> rows = {1, 2.5, 0, 79, 0.25, 7.125}, columns = {1, 79, 2.5, 0.25, 0, 7.125};
  const DepthMap expected{3, 2, {rows.begin(), rows.end()}};
  for (const char* shape : {"(2, 3)", "(2L, 3L)", "(1, 2, 3)", "(1, 1, 2, 3)", "(2, 3, 1)", "(1, 2, 3, 1)"}) {
    for (const bool by_column : {false, true}) {
      for (const bool big_endian : {false, true}) {
        SCOPED_TRACE(concat_text(shape, by_column ? " Fortran" : "", big_endian ? " big-endian" : ""));
        std::vector<uint8_t> data(6 * sizeof(double));
        std::memcpy(data.data(), (by_column ? columns : rows).data(), data.size());
        if (big_endian) data = reversed(data, sizeof(double));
        const std::string descr = big_endian ? ">f8" : "<f8";
        write_quickly(folder / "a.npy", npy_bytes(by_column ? fortran(descr, shape) : dictionary(descr, shape), data));
        const MapReader reader(folder / "a.npy", {});
        EXPECT_EQ(reader.size(), expected.size());
        for (const auto& [first, last] : {std::pair{0, 2}, {0, 1}, {1, 2}}) {
          std::vector<float> found(static_cast<size_t>(3 * (last - first)));
          reader.read_rows(first, last, found.data());
          EXPECT_EQ(found, std::vector<float>(expected.values.begin() + 3 * first, expected.values.begin() + 3 * last));
        }
      }
    }
  }
}

TEST(map_file, what_cannot_be_depth_may_be_kept) {
  const TemporaryFolder folder;
  const std::vector<float> values = {std::nanf(""), -1.0f, 2.0f};
  write_map(folder / "a.npy", {3, 1, values}, {});
  const DepthMap map = read_map(folder / "a.npy", {.unusable = MapFormat::Unusable::kKept});
  EXPECT_TRUE(std::isnan(map.values[0]));
  EXPECT_EQ(map.values[1], -1.0f);
}

// A unit that is stated for PNG is one of integers; floats are metres, unless a unit is stated for them.
TEST(map_file, units_of_integers_and_of_floats) {
  const TemporaryFolder folder;
  write_quickly(folder / "u.npy", npy_bytes(dictionary("<u2", "(1, 3)"), raw<uint16_t>({0, 1000, 2500})));
  write_quickly(folder / "f.npy", npy_bytes(dictionary("<f4", "(1, 3)"), raw<float>({0, 1, 2.5f})));
  write_quickly(folder / "h.npy", npy_bytes(dictionary("<f2", "(1, 3)"), raw<uint16_t>({0, 0x3c00, 0x4100})));
  write_pfm(folder / "f.pfm", 3, 1, std::vector<float>{0, 1, 2.5f});
  const std::vector<float> metres = {0, 1, 2.5f}, thousandths = {0, 1e-3f, 2.5e-3f};
  for (const char* name : {"u.npy", "f.npy", "h.npy", "f.pfm"}) {
    EXPECT_EQ(read_map(folder / name, {1e-3}).values, metres) << name;
  }
  EXPECT_EQ(read_map(folder / "u.npy", {}).values, (std::vector<float>{0, 1000, 2500}));
  for (const char* name : {"f.npy", "h.npy", "f.pfm"}) {
    const MapFormat format{.metres_per_unit = 1.0 / 256, .metres_per_float_unit = 1e-3};
    EXPECT_EQ(read_map(folder / name, format).values, thousandths) << name;
  }
  write_map(folder / "copy.npy", {3, 1, thousandths}, {.metres_per_float_unit = 1e-3});
  EXPECT_EQ(read_npy(folder / "copy.npy").values, metres);
  write_map(folder / "copy.pfm", {3, 1, thousandths}, {.metres_per_float_unit = 1e-3});
  EXPECT_EQ(read_pfm(folder / "copy.pfm").values, metres);
}

// A file that says what it holds is believed, whatever its reader states.
TEST(map_file, files_say_what_they_hold) {
  const TemporaryFolder folder;
  const MapFormat written{.metres_per_unit = 1e-3, .metres_per_float_unit = 0.5}, stated{.metres_per_unit = 1.0 / 256};
  for (const MapKind& kind : {kMetricDepth, kRelativeInverseDepth, MapKind{Quantity::kDepth, Ambiguity::kScale},
                              MapKind{Quantity::kInverseDepth, Ambiguity::kNone}}) {
    for (const char* name : {"a.png", "a.npy", "a.pfm"}) {
      SCOPED_TRACE(name + (": " + name_of(kind)));
      write_map(folder / name, {2, 1, {1.5f, 3.0f}, kind}, written);
      const DepthMap map = read_map(folder / name, stated);
      EXPECT_EQ(map.kind, kind);
      EXPECT_EQ(map.values, (std::vector<float>{1.5f, 3.0f}));
    }
  }
  write_png(folder / "silent.png", read_png16(folder / "a.png"));
  const DepthMap silent = read_map(folder / "silent.png", {1e-3, MapFormat::Unusable::kHole, kRelativeInverseDepth});
  EXPECT_EQ(silent.kind, kRelativeInverseDepth);
  EXPECT_EQ(silent.values, (std::vector<float>{1.5f, 3.0f}));
}

TEST(map_file, statements_in_words) {
  EXPECT_EQ(to_text({kMetricDepth, 1.0 / 256}), "depth in metres, unit 0.00390625");
  EXPECT_EQ(to_text({kRelativeInverseDepth, 1}), "inverse depth up to scale and shift, unit 1");
  const MapStatement third = parse_statement(to_text({{Quantity::kInverseDepth, Ambiguity::kNone}, 1.0 / 3}), "a");
  EXPECT_EQ(third.unit, 1.0 / 3);
  EXPECT_EQ(third.kind, (MapKind{Quantity::kInverseDepth, Ambiguity::kNone}));
  for (const char* text : {"", "depth", "depth in metres", "depth in metres, unit 0", "depth in metres, unit -1",
                           "depth in metres, unit inf", "depth in metres, unit 1 and more", "depth in feet, unit 1"}) {
    expect_clear(error_of([&] { parse_statement(text, "a.png"); }), "a.png: expected the file to say");
  }
}

TEST(map_file, comments_of_npy) {
  const TemporaryFolder folder;
  const auto read = [&](const std::string& comment) {
    const std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1)}  #" + comment + "  \n";
    write_quickly(folder / "a.npy", npy_bytes(header, raw<float>({3})));
    return read_map(folder / "a.npy", {});
  };
  EXPECT_EQ(read(" depthstill: depth in metres, unit 0.5").values, std::vector<float>{1.5f});
  for (const char* foreign : {"", " a remark", "depth in metres, unit 0.5"}) {
    EXPECT_EQ(read(foreign).values, std::vector<float>{3.0f}) << foreign;
  }
  expect_clear(error_of([&] { read(" depthstill: depth in fathoms"); }), "a.npy: expected the file to say");
  expect_clear(error_of([&] { read("\n# twice"); }), "nothing after the dictionary");
}

// A .pfm has no room for words. The file beside it counts only for the map that it was written with.
TEST(map_file, file_beside_a_pfm) {
  const TemporaryFolder folder;
  write_map(folder / "a.pfm", {1, 1, {2.0f}}, {});
  EXPECT_EQ(folder.file_count(), 1u);
  write_map(folder / "a.pfm", {1, 1, {2.0f}, kRelativeInverseDepth}, {});
  EXPECT_EQ(folder.file_count(), 2u);
  EXPECT_EQ(read_map(folder / "a.pfm", {}).kind, kRelativeInverseDepth);
  write_pfm(folder / "a.pfm", 1, 1, std::vector<float>{2.5f});
  EXPECT_EQ(read_map(folder / "a.pfm", {}).kind, kMetricDepth);
  write_file(folder / "b.pfm.txt", std::string_view("my notes"));
  expect_clear(error_of([&] {
                 write_map(folder / "b.pfm", {1, 1, {2.0f}, kRelativeInverseDepth}, {});
               }),
               "b.pfm.txt: expected no file");
  EXPECT_EQ(read_text(folder / "b.pfm.txt"), "my notes");
  write_pfm(folder / "c.pfm", 1, 1, std::vector<float>{2.5f});
  for (const std::string& others : {std::string("\xff\xfeh\0", 4), std::string(70000, 'x')}) {
    write_file(folder / "c.pfm.txt", others);
    EXPECT_EQ(read_map(folder / "c.pfm", {}).values, std::vector<float>{2.5f});
  }
}

TEST(png_text, is_found_and_passed_over) {
  std::vector<uint8_t> file = encode_png(Image16{2, 1, {7, 8}});
  EXPECT_EQ(find_png_text(file, "depthstill"), std::nullopt);
  add_png_text(file, "depthstill", "some words");
  add_png_text(file, "depthstill2", "others");
  EXPECT_EQ(find_png_text(file, "depthstill"), "some words");
  EXPECT_EQ(find_png_text(file, "depth"), std::nullopt);
  EXPECT_EQ(decode_png16(file, "a.png").grey, (std::vector<uint16_t>{7, 8}));
  for (size_t length = 0; length < file.size(); ++length) {
    find_png_text(std::span(file.data(), length), "depthstill");  // reads nothing beyond
  }
}

TEST(map_file, teacher_scale) {
  const TemporaryFolder folder;
  write_png(folder / "t.png", Image16{3, 1, {0, 65535, 8192}});
  const DepthMap map = read_map(folder / "t.png", {80.0 / 65535, MapFormat::Unusable::kRefused});
  EXPECT_EQ(map.values[0], 0.0f);
  EXPECT_FLOAT_EQ(map.values[1], 80.0f);
  EXPECT_FLOAT_EQ(map.values[2], 8192 * 80.0f / 65535);
  write_map(folder / "u.png", {4, 1, {-1.0f, 1e9f, std::nanf(""), 40.0f}}, {80.0 / 65535});
  EXPECT_EQ(read_png16(folder / "u.png").grey, (std::vector<uint16_t>{0, 65535, 0, 32768}));
}

TEST(map_file, what_a_file_cannot_hold_is_counted) {
  const TemporaryFolder folder;
  const DepthMap map{5, 1, {1.0f, 21.84f, 21.85f, 80.0f, 1e-4f}};
  const Clipping clipping = write_map(folder / "a.png", map, {1.0 / 3000});
  EXPECT_EQ(clipping.beyond, 2);
  EXPECT_EQ(clipping.vanished, 1);
  EXPECT_DOUBLE_EQ(clipping.limit, 65535.0 / 3000);
  EXPECT_EQ(describe(clipping),
            "3 of 5 pixels are beyond 21.8 m and stored as 21.8 m, or nearer than half a unit and stored as 0, which "
            "means unknown");
  EXPECT_EQ(read_png16(folder / "a.png").grey, (std::vector<uint16_t>{3000, 65520, 65535, 65535, 0}));
  EXPECT_FALSE(write_map(folder / "b.png", {2, 1, {0.0f, 255.99f}}, {1.0 / 256}).any());
  EXPECT_FALSE(write_map(folder / "a.npy", map, {}).any());
  const MapFormat millimetres{.metres_per_float_unit = 1e-3};
  EXPECT_EQ(write_map(folder / "h.npy", map, millimetres, NpyType::kHalf).beyond, 1);
  EXPECT_EQ(read_npy(folder / "h.npy").values[3], 65504.0f);
  DepthMap inverse{2, 1, {0.1f, 5.0f}, kRelativeInverseDepth};  // 0 is far away, not unknown
  EXPECT_FALSE(write_map(folder / "c.png", inverse, {1}).any());
}

TEST(map_file, holes) {
  const TemporaryFolder folder;
  const float inf = std::numeric_limits<float>::infinity();
  for (const float hole : {std::nanf(""), inf, -inf, -1.0f}) {
    for (const char* name : {"a.npy", "a.pfm"}) {
      DepthMap depth = small_depth();
      depth.values[4] = hole;
      write_map(folder / name, depth, {});
      EXPECT_EQ(read_map(folder / name, {}).values[4], 0.0f);
      const std::string message = error_of([&] { read_map(folder / name, {1.0, MapFormat::Unusable::kRefused}); });
      expect_clear(message, "row 1, column 1");
    }
  }
}

TEST(map_file, refusals) {
  const TemporaryFolder folder;
  write_png(folder / "a.png", Image16{1, 1, {5}});
  expect_clear(error_of([&] { read_map(folder / "a.png", {}); }), "a.png: expected a stated depth scale");
  expect_clear(error_of([&] { read_map(folder / "a.exr", {}); }), "expected a depth map .png, .npy or .pfm");
  const int64_t shape[] = {2, 2, 2};
  write_npy(folder / "a.npy", shape, std::vector<float>(8));
  expect_clear(error_of([&] { read_map(folder / "a.npy", {}); }), "expected an array (height, width)");
}

}  // namespace
}  // namespace depthstill
