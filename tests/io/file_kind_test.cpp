#include "engine/io/file_kind.h"

#include <gtest/gtest.h>

#include <string_view>

#include "engine/io/image.h"
#include "engine/io/map_file.h"
#include "engine/io/text_file.h"
#include "engine/io/weights_file.h"
#include "tests/io/test_files.h"

namespace depthstill {
namespace {

using namespace std::string_view_literals;
using testing_files::error_of;
using testing_files::TemporaryFolder;

struct Sample {
  std::string_view bytes;
  const char* kind;
};
constexpr Sample kSamples[] = {
    {""sv, "an empty file"},
    {"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 99173660\n"sv, "a Git LFS pointer"},
    {"<!DOCTYPE html>\n<html lang=\"en\">"sv, "a web page"},
    {"\xef\xbb\xbf\n  <HTML><head>"sv, "a web page"},
    {"<?xml version=\"1.0\"?><html xmlns=\"x\">"sv, "a web page"},
    {"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code>"sv, "an XML document"},
    {"<svg xmlns=\"http://www.w3.org/2000/svg\">"sv, "an SVG drawing"},
    {"\x08\x08\x12\x07pytorch"sv, "an ONNX model"},
    {"\x89PNG\r\n\x1a\n\0\0\0\x0d"sv, "a PNG picture"},
    {"\xff\xd8\xff\xe0\0\x10JFIF"sv, "a JPEG picture"},
    {"GIF89a\x10\0\x10\0"sv, "a GIF picture"},
    {"RIFF\x24\0\0\0WEBPVP8 "sv, "a WebP picture"},
    {"BM\x36\x03\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x10\0\0\0"sv, "a BMP picture"},
    {"II*\0\x08\0\0\0"sv, "a TIFF picture"},
    {"MM\0*\0\0\0\x08"sv, "a TIFF picture"},
    {"\0\0\0\x18"
     "ftypheic\0\0\0\0mif1heic"sv,
     "a HEIF picture"},
    {"\0\0\0\x20"
     "ftypavif\0\0\0\0"sv,
     "an AVIF picture"},
    {"\0\0\0\x20"
     "ftypisom\0\0\2\0"sv,
     "an MP4 video"},
    {"P6\n640 480\n255\n"sv, "a Netpbm or PFM picture"},
    {"\x93NUMPY\x01\0v\0{'descr'"sv, "a NumPy array"},
    {"\x89HDF\r\n\x1a\n\0\0\0\0"sv, "an HDF5 file"},
    {"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"sv, "an empty zip archive"},
    {"\x1f\x8b\x08\0\0\0\0\0"sv, "a gzip file"},
    {"\x80\x04\x95\x10\0\0\0\0\0\0\0}"sv, "a Python pickle"},
    {"Entry not found"sv, "a text file that begins 'Entry not found'"},
    {"BM25 is a ranking\nfunction"sv, "a text file that begins 'BM25 is a ranking'"},
    {"sch\xc3\xb6n"sv, "a text file that begins 'sch\xc3\xb6n'"},
    {" \n"sv, "a text file of blanks"},
};

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

TEST(FileKind, IsToldByTheFirstBytes) {
  for (const Sample& sample : kSamples)
    EXPECT_TRUE(file_kind(bytes_of(sample.bytes)).starts_with(sample.kind)) << sample.kind;
  EXPECT_EQ(file_kind(bytes_of("\x10\0\0\0\0\0\0\0{\"a\":{}}"sv)), "a safetensors file");
  for (const std::string_view unknown : {"\0\0\0\0"sv, "\xff\xff\xff"sv, "a\0b"sv, "\x80 abc"sv}) {
    EXPECT_EQ(file_kind(bytes_of(unknown)), "");
  }
  std::string archive(600, '\0');
  archive.replace(257, 5, "ustar");
  EXPECT_EQ(file_kind(bytes_of(archive)), "a tar archive");
}

TEST(FileKind, ReadersOfWeightsAndImagesNameWhatTheyFound) {
  const TemporaryFolder folder;
  const std::string path = folder / "model.safetensors";
  for (const Sample& sample : kSamples) {
    testing_files::write_quickly(path, {reinterpret_cast<const uint8_t*>(sample.bytes.data()), sample.bytes.size()});
    const std::string found = std::string(", found ") + sample.kind, weights = error_of([&] { open_weights(path); });
    EXPECT_NE(weights.find(path + ": expected "), std::string::npos) << weights;
    EXPECT_NE(weights.find(found), std::string::npos) << weights;
    const std::string image = error_of([&] { read_image(path); });
    const bool decoded = found.ends_with("PNG picture") || found.ends_with("JPEG picture");
    EXPECT_EQ(image.find(path + ": expected a PNG or JPEG file" + found) == std::string::npos, decoded) << image;
  }
}

TEST(FileKind, ReadersOfMapsAndTextNameWhatTheyFound) {
  const TemporaryFolder folder;
  for (const Sample& sample : kSamples) {
    const std::span<const uint8_t> bytes(reinterpret_cast<const uint8_t*>(sample.bytes.data()), sample.bytes.size());
    const std::string kind = sample.kind;
    for (const char* name : {"map.npy", "map.pfm"}) {
      if (kind.ends_with("NumPy array")) continue;
      testing_files::write_quickly(folder / name, bytes);
      const std::string message = error_of([&] { read_map(folder / name, {}); });
      EXPECT_NE(message.find(" file, found " + kind), std::string::npos) << message;
    }
    const bool is_text = kind == "an empty file" || kind.starts_with("a text file") || kind.starts_with("a Netpbm");
    testing_files::write_quickly(folder / "list.txt", bytes);
    const std::string message = error_of([&] { read_text(folder / "list.txt"); });
    const std::string expected = folder / "list.txt" + ": expected UTF-8 text, found " + kind;
    EXPECT_TRUE(is_text ? message.empty() : message.starts_with(expected)) << kind << ": " << message;
  }
}

TEST(FileKind, AFolderOfWeightsIsNotAFile) {
  const TemporaryFolder folder;
  EXPECT_EQ(error_of([&] { open_weights(folder.path()); }),
            folder.path() + ": expected a file of weights, found a folder");
  for (const char* name : {"epoch_001.safetensors", "last.safetensors", "recipe.toml"}) write_file(folder / name, "x");
  EXPECT_TRUE(
      error_of([&] { open_weights(folder.path()); }).ends_with("found a folder; try epoch_001.safetensors in it"));
  write_file(folder / "best.safetensors", "x");
  EXPECT_TRUE(error_of([&] { open_weights(folder.path()); }).ends_with("; try best.safetensors in it"));
}

}  // namespace
}  // namespace depthstill
