#include "engine/data/packed.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "engine/io/checksum.h"
#include "engine/io/text_file.h"
#include "tests/data/small_set.h"

namespace depthstill {
namespace {

using namespace testing_files;

constexpr double kDepthScale = 1.0 / 256, kTeacherScale = 80.0 / 65535;

// Samples of several sizes; the last has neither ground truth nor teacher.
std::vector<Sample> some_samples() {
  std::vector<Sample> samples(3);
  for (int i = 0; i < 3; ++i) {
    Sample& sample = samples[static_cast<size_t>(i)];
    sample.index = 5 + i;
    sample.name = concat_text("images/", i, ".png");
    sample.stored_size = {100 + i, 50};
    sample.image = numbered_image(13 + i, 7, i);
    if (i == 2) continue;
    sample.depth = numbered_depth(13 + i, 7, i);
    DepthMap teacher = numbered_depth(13 + i, 7, i);
    for (float& metres : teacher.values)
      metres = static_cast<float>(std::round(metres / kTeacherScale) * kTeacherScale);
    sample.teacher = std::move(teacher);
  }
  return samples;
}

std::string write_shard(const TemporaryFolder& folder, const std::vector<Sample>& samples) {
  ShardWriter shard(folder.path(), samples[0].index);
  for (const Sample& sample : samples) shard.add(sample, {sample.name, "d", 50.5, 8}, kDepthScale, kTeacherScale);
  shard.commit();
  EXPECT_EQ(shard.max_error(), 0);
  return folder / shard_name(samples[0].index);
}

TEST(packed, a_shard_gives_back_what_was_written) {
  const TemporaryFolder folder;
  const std::vector<Sample> samples = some_samples();
  const std::string path = write_shard(folder, samples);
  EXPECT_TRUE(path.ends_with("samples_00000005.shard"));
  EXPECT_EQ(list_shards(folder.path()), std::vector<int64_t>{5});
  std::vector<Sample> loaded(samples.size());
  {
    const Shard shard(path);
    ASSERT_EQ(shard.entries().size(), samples.size());
    EXPECT_EQ(shard.first(), 5);
    for (size_t i = 0; i < samples.size(); ++i) shard.load(shard.entries()[i], loaded[i]);
    EXPECT_EQ(shard.entries()[0].line.image, "images/0.png");
    EXPECT_EQ(shard.entries()[0].line.focal, 50.5);
    EXPECT_EQ(shard.entries()[0].line.line, 8);
  }  // the samples keep the memory mapped
  for (size_t i = 0; i < samples.size(); ++i) {
    const Sample &expected = samples[i], &found = loaded[i];
    EXPECT_EQ(found.stored_size, expected.stored_size);
    EXPECT_EQ(found.image.size(), expected.image.size());
    EXPECT_EQ(found.image.copy().rgb, expected.image.copy().rgb);
    EXPECT_EQ(found.depth.copy().values, expected.depth.copy().values);
    EXPECT_EQ(found.teacher.copy().values, expected.teacher.copy().values);
    EXPECT_EQ(found.teacher.empty(), i == 2);
    for (const void* plane :
         {static_cast<const void*>(found.image.rgb.data()), static_cast<const void*>(found.depth.units.data()),
          static_cast<const void*>(found.teacher.units.data())}) {
      EXPECT_EQ(reinterpret_cast<uintptr_t>(plane) % 64, 0u);
    }
  }
}

TEST(packed, depths_that_16_bits_hold_exactly_stay_exact) {
  DepthMap map{256, 256, std::vector<float>(65536)};
  for (const double scale : {1.0 / 256, 1.0 / 1000, 80.0 / 65535, 0.001234}) {
    for (size_t i = 0; i < map.values.size(); ++i) map.values[i] = static_cast<float>(static_cast<double>(i) * scale);
    const DepthUnits stored = to_units(map, scale);
    EXPECT_EQ(stored.metres_per_unit, scale);
    EXPECT_EQ(stored.max_error, 0);
    for (size_t i = 0; i < map.values.size(); ++i) ASSERT_EQ(stored.units[i], i);
  }
}

TEST(packed, other_depths_keep_a_stated_error) {
  DepthMap map{7, 1, {0, 1e-9f, 0.3f, 17.123456f, 79.9999f, 80.0f, 1.0f / 3}};
  for (const double scale : {1.0 / 256, 0.0}) {
    const DepthUnits stored = to_units(map, scale);
    EXPECT_DOUBLE_EQ(stored.metres_per_unit, 80.0 / 65535);
    EXPECT_GT(stored.max_error, 0);
    EXPECT_LE(stored.max_error, stored.metres_per_unit);
    EXPECT_EQ(stored.units[0], 0);
    EXPECT_EQ(stored.units[1], 1);  // small, but known
    for (size_t i = 2; i < 7; ++i) {
      EXPECT_NEAR(stored.units[i] * stored.metres_per_unit, map.values[i], stored.metres_per_unit / 2 * 1.001);
      EXPECT_LE(std::abs(stored.units[i] * stored.metres_per_unit - map.values[i]), stored.max_error * 1.001 + 1e-6);
    }
  }
  EXPECT_EQ(to_units(DepthMap{2, 1, {0, 0}}, 0).units, (std::vector<uint16_t>{0, 0}));
  EXPECT_GT(to_units(DepthMap{2, 1, {0, 0}}, 0).metres_per_unit, 0);
}

TEST(packed, damage_names_shard_and_sample) {
  const TemporaryFolder folder;
  const std::string path = write_shard(folder, some_samples());
  const std::vector<uint8_t> good = read_bytes(path);
  const PackedEntry second = Shard(path).entries()[1];
  for (const PackedPlane* plane : {&second.image, &second.depth, &second.teacher}) {
    std::vector<uint8_t> damaged = good;
    damaged[plane->offset + 3] ^= 0x80;
    write_quickly(path, damaged);
    const Shard shard(path);
    Sample sample;
    shard.load(shard.entries()[0], sample);
    expect_clear(error_of([&] { shard.load(shard.entries()[1], sample); }), path + ": sample images/1.png is damaged");
  }
  for (const size_t bytes : {size_t{0}, size_t{9}, size_t{64}, good.size() / 2, good.size() - 1}) {
    write_quickly(path, std::span(good).first(bytes));
    expect_clear(error_of([&] { Shard shard(path); }), path + ": expected");
  }
  std::vector<uint8_t> damaged = good;
  damaged[good.size() - 40] ^= 1;
  write_quickly(path, damaged);
  EXPECT_EQ(error_of([&] { Shard shard(path); }), path + ": the shard's index is damaged (checksum)");
}

std::string index_of(const std::vector<uint8_t>& shard) {
  uint64_t offset = 0;
  std::memcpy(&offset, &shard[shard.size() - 32], 8);
  return {shard.begin() + static_cast<std::ptrdiff_t>(offset), shard.end() - 32};
}

// The shard with another index, under a right checksum.
std::vector<uint8_t> with_index(const std::vector<uint8_t>& shard, std::span<const uint8_t> index) {
  uint64_t offset = 0;
  std::memcpy(&offset, &shard[shard.size() - 32], 8);
  std::vector<uint8_t> file(shard.begin(), shard.begin() + static_cast<std::ptrdiff_t>(offset));
  file.insert(file.end(), index.begin(), index.end());
  const uint64_t footer[] = {offset, index.size(), checksum64(std::as_bytes(index))};
  const auto* bytes = reinterpret_cast<const uint8_t*>(footer);
  file.insert(file.end(), bytes, bytes + sizeof(footer));
  file.insert(file.end(), shard.end() - 8, shard.end());
  return file;
}

// The same, with the first `text` in it replaced.
std::vector<uint8_t> with_index_edited(const std::vector<uint8_t>& shard, const std::string& text,
                                       const std::string& by) {
  std::string index = index_of(shard);
  EXPECT_NE(index.find(text), std::string::npos) << text;
  index.replace(index.find(text), text.size(), by);
  return with_index(shard, {reinterpret_cast<const uint8_t*>(index.data()), index.size()});
}

// Indices are mutated under a right checksum, too.
TEST(packed, mutated_shards_only_throw_errors) {
  const TemporaryFolder folder;
  const std::string path = write_shard(folder, some_samples());
  const std::vector<uint8_t> good = read_bytes(path);
  const auto read_all = [&](std::vector<uint8_t> bytes) {
    write_quickly(path, bytes);
    const Shard shard(path);
    for (const PackedEntry& entry : shard.entries()) {
      Sample sample;
      shard.load(entry, sample);
    }
  };
  try_mutations(good, 200, read_all);
  const std::string index = index_of(good);
  try_mutations({index.begin(), index.end()}, 400,
                [&](const std::vector<uint8_t>& mutated) { read_all(with_index(good, mutated)); });
}

// What does not fit a number's type would wrap, and a size of another picture could come of it.
TEST(packed, numbers_of_an_index_are_whole_and_fit) {
  const TemporaryFolder folder;
  const std::string path = write_shard(folder, some_samples());
  const std::vector<uint8_t> good = read_bytes(path);
  const char* const edits[][2] = {{"[13,7]", "[4294967309,7]"},
                                  {"[13,7]", "[1e300,7]"},
                                  {"[13,7]", "[13.5,7]"},
                                  {"[13,7]", "[\"13\",7]"},
                                  {"\"line\":8", "\"line\":-9999999999"},
                                  {"\"at\":64", "\"at\":-64"},
                                  {"\"first\":5", "\"first\":1e300"}};
  for (const auto& [text, by] : edits) {
    write_quickly(path, with_index_edited(good, text, by));
    expect_clear(error_of([&] { Shard shard(path); }), path + ": expected a whole number");
  }
  make_folder(folder / "set");
  write_file(folder / "set/packed.json", "{\"format\": \"depthstill packed data\", \"version\": [[[1]]]}");
  expect_clear(error_of([&] { read_pack_manifest(folder / "set"); }), "packed.json: expected a whole number");
}

TEST(packed, messages_are_one_line_whatever_a_shard_says) {
  const TemporaryFolder folder;
  const std::string path = write_shard(folder, some_samples());
  const std::vector<uint8_t> good = read_bytes(path);
  const std::vector<uint8_t> named = with_index_edited(good, "images/0.png", "a\\nb");
  const std::string checksum = "\"checksum\":\"";
  write_quickly(path, with_index_edited(named, checksum, checksum + "1\",\"other\":\""));
  const auto load_first = [&] {
    const Shard shard(path);
    Sample sample;
    shard.load(shard.entries()[0], sample);
  };
  expect_clear(error_of(load_first), path + ": sample a\\x0ab is damaged");
  write_quickly(path, with_index_edited(named, "[13,7]", "[0,7]"));
  expect_clear(error_of(load_first), path + ": sample a\\x0ab: expected planes");
  write_quickly(path, with_index_edited(good, checksum, checksum + "\\n"));
  expect_clear(error_of([&] { Shard shard(path); }), path + ": expected a hexadecimal number, found '\\x0a");
  const PackManifest one{{{"list", "a\nb"}}, "", 1, 0}, other{{{"list", "c"}}, "", 1, 0};
  const std::string message = error_of([&] { check_pack_settings("f", one, other); });
  EXPECT_TRUE(message.starts_with("f: packed with list = a\\x0ab")) << message;
}

TEST(packed, manifest_is_read_back_and_protects_other_folders) {
  const TemporaryFolder folder;
  EXPECT_FALSE(read_pack_manifest(folder.path()).has_value());
  EXPECT_FALSE(read_pack_manifest(folder / "missing").has_value());
  const PackManifest written{{{"list", "a.txt"}, {"data.crop", "none"}}, "12", 7, 2};
  write_pack_manifest(folder / "set", written);
  const auto found = read_pack_manifest(folder / "set");
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->settings, written.settings);
  EXPECT_EQ(found->samples, 7);
  EXPECT_EQ(found->skipped, 2);
  EXPECT_EQ(error_of([&] { check_pack_settings("f", *found, written); }), "");
  PackManifest other = written;
  other.settings[1].second = "kitti_benchmark";
  EXPECT_EQ(
      error_of([&] { check_pack_settings("f", *found, other); }),
      "f: packed with data.crop = none, but the recipe says kitti_benchmark; pack into another folder, or set what "
      "was packed");
  other = written;
  other.list_checksum = "13";
  EXPECT_NE(error_of([&] { check_pack_settings("f", *found, other); }).find("the list has changed"), std::string::npos);
  make_folder(folder / "set");
  write_file(folder / "set/packed.json", "{\"format\": \"depthstill packed data\", \"version\": 9}");
  expect_clear(error_of([&] { read_pack_manifest(folder / "set"); }), "expected version 1, found 9");
  write_file(folder / "set/packed.json", "[1");
  expect_clear(error_of([&] { read_pack_manifest(folder / "set"); }), "packed.json: expected");
  expect_clear(error_of([&] { read_pack_manifest(folder.path()); }), "expected packed data or an empty folder");
}

TEST(packed, an_incomplete_set_says_so) {
  const TemporaryFolder folder;
  expect_clear(error_of([&] { PackedSet set(folder / "missing"); }), "missing: expected a folder");
  write_pack_manifest(folder.path(), {{}, "", 8, 0});
  expect_clear(error_of([&] { PackedSet set(folder.path()); }), "expected 8 samples, found 0; run `depthstill pack`");
  write_shard(folder, some_samples());  // samples 5 to 7, but 0 to 4 are missing
  expect_clear(error_of([&] { PackedSet set(folder.path()); }), "expected 8 samples, found 0");
  EXPECT_EQ(first_of_shard("samples_00000005.shard"), 5);
  for (const char* name : {"samples_5.shard", "samples_-0000005.shard", "samples_00000005.shard.tmp3", "packed.json"}) {
    EXPECT_FALSE(first_of_shard(name).has_value()) << name;
  }
}

TEST(packed, checksum_sees_every_bit_and_the_length) {
  std::vector<std::byte> bytes(300, std::byte{7});
  std::set<uint64_t> seen{checksum64(bytes), checksum64(bytes, 1)};
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      bytes[i] ^= std::byte{1} << bit;
      seen.insert(checksum64(bytes));
      bytes[i] ^= std::byte{1} << bit;
    }
    seen.insert(checksum64(std::span(bytes).first(i)));
  }
  EXPECT_EQ(seen.size(), 2u + 300 * 9);
  const std::byte zeros[256] = {};
  EXPECT_NE(checksum64(std::span(zeros).first(128)), checksum64(zeros));
}

}  // namespace
}  // namespace depthstill
