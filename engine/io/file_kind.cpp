#include "engine/io/file_kind.h"

#include <algorithm>
#include <string_view>

#include "engine/io/text_file.h"

namespace depthstill {
namespace {

constexpr size_t kMostBytes = 512;

struct Signature {
  size_t at;
  std::string_view bytes;
  const char* kind;
};

// The first row that fits counts.
using namespace std::string_view_literals;
constexpr Signature kSignatures[] = {
    {0, "\x89PNG\r\n\x1a\n"sv, "a PNG picture"},
    {0, "\xff\xd8\xff"sv, "a JPEG picture"},
    {0, "GIF87a"sv, "a GIF picture"},
    {0, "GIF89a"sv, "a GIF picture"},
    {8, "WEBP"sv, "a WebP picture"},
    {0, "II*\0"sv, "a TIFF picture"},
    {0, "MM\0*"sv, "a TIFF picture"},
    {0, "II+\0"sv, "a TIFF picture"},
    {0, "MM\0+"sv, "a TIFF picture"},
    {4, "ftypavif"sv, "an AVIF picture"},
    {4, "ftypavis"sv, "an AVIF picture"},
    {4, "ftyphe"sv, "a HEIF picture"},  // heic, heix, heim, heis, hevc, ...
    {4, "ftypmif1"sv, "a HEIF picture"},
    {4, "ftypmsf1"sv, "a HEIF picture"},
    {4, "ftyp"sv, "an MP4 video"},
    {8, "AVI "sv, "an AVI video"},
    {0, "\x1a\x45\xdf\xa3"sv, "a Matroska video"},
    {0, "\0\0\0\x0cJXL \r\n\x87\n"sv, "a JPEG XL picture"},
    {0, "\xff\x0a"sv, "a JPEG XL picture"},
    {0, "\0\0\0\x0cjP  \r\n\x87\n"sv, "a JPEG 2000 picture"},
    {0, "\xff\x4f\xff\x51"sv, "a JPEG 2000 picture"},
    {0, "\x76\x2f\x31\x01"sv, "an OpenEXR picture"},
    {0, "8BPS"sv, "a Photoshop picture"},
    {0, "\x93NUMPY"sv, "a NumPy array"},
    {0, "\x89HDF\r\n\x1a\n"sv, "an HDF5 file"},
    {4, "TFL3"sv, "a TensorFlow Lite model"},
    {0, "GGUF"sv, "a GGUF model"},
    {0, "PK\x03\x04"sv, "a zip archive"},
    {0, "PK\x05\x06"sv, "an empty zip archive"},
    {0, "\x1f\x8b"sv, "a gzip file"},
    {4, "1AY&SY"sv, "a bzip2 file"},
    {0,
     "\xfd"sv
     "7zXZ\0"sv,
     "an xz file"},
    {0, "\x28\xb5\x2f\xfd"sv, "a Zstandard file"},
    {0, "7z\xbc\xaf\x27\x1c"sv, "a 7z archive"},
    {0, "Rar!\x1a\x07"sv, "a RAR archive"},
    {257, "ustar"sv, "a tar archive"},
    {0, "%PDF-"sv, "a PDF document"},
    {0,
     "\x7f"sv
     "ELF"sv,
     "a program"},
    {0, "\xff\xfe"sv, "a text file in UTF-16"},
    {0, "\xfe\xff"sv, "a text file in UTF-16"},
};

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return result;
}

// A "BM" alone may begin a text: the reserved bytes are zero, and the size of the second header is one of a few.
bool is_bmp(std::string_view head) {
  return head.size() >= 18 && head.starts_with("BM") && head.substr(6, 4) == "\0\0\0\0"sv && head[14] >= 12 &&
         head.substr(15, 3) == "\0\0\0"sv;
}

// Netpbm and PFM: a letter, a kind, and space before the width or a comment.
bool is_netpbm(std::string_view head) {
  return head.size() >= 4 && head[0] == 'P' && "123456fF"sv.find(head[1]) != std::string_view::npos &&
         "\n\r\t "sv.find(head[2]) != std::string_view::npos && "0123456789#"sv.find(head[3]) != std::string_view::npos;
}

// The length of a header below 2^40, and JSON.
bool is_safetensors(std::string_view head) {
  return head.size() >= 10 && head.substr(5, 3) == "\0\0\0"sv && head[8] == '{' && head[0] != '\0';
}

// ONNX has no signature. Its protocol buffer begins with the format's version, and another field of the model follows.
bool is_onnx(std::string_view head) {
  constexpr std::string_view kFields = "\x12\x1a\x22\x28\x32\x3a\x42\x72";
  return head.size() >= 3 && head[0] == 0x08 && head[1] > 0 && head[1] < 0x20 &&
         kFields.find(head[2]) != std::string_view::npos;
}

bool is_pickle(std::string_view head) { return head.size() >= 2 && head[0] == '\x80' && head[1] >= 2 && head[1] <= 5; }

// UTF-8 without control characters; the last character may be cut.
bool is_text(std::string_view head) {
  int following = 0;
  for (const char c : head) {
    const auto byte = static_cast<unsigned char>(c);
    if (following > 0) {
      if ((byte & 0xc0) != 0x80) return false;
      --following;
    } else if (byte >= 0x80) {
      if (byte < 0xc2 || byte > 0xf4) return false;
      following = byte >= 0xf0 ? 3 : byte >= 0xe0 ? 2 : 1;
    } else if (byte == 0x7f || (byte < 0x20 && (byte < '\t' || byte > '\r') && byte != 0x1b)) {
      return false;
    }
  }
  return true;
}

std::string_view without_mark_and_blanks(std::string_view head) {
  if (head.starts_with("\xef\xbb\xbf")) head.remove_prefix(3);
  return head.substr(std::min(head.find_first_not_of(" \t\r\n"), head.size()));
}

// "" for text that nothing is known of.
std::string text_kind(std::string_view head) {
  head = without_mark_and_blanks(head);
  if (head.starts_with("version https://git-lfs") || head.starts_with("version https://hawser"))
    return "a Git LFS pointer, which stands for the real file: fetch that with `git lfs pull`";
  const std::string tags = lower(head);
  for (const std::string_view tag : {"<!doctype html", "<html", "<head", "<body", "<script", "<title", "<meta"}) {
    if (tags.starts_with(tag)) return "a web page: the download gave no file";
  }
  if (tags.starts_with('<') && tags.find("<html") != std::string::npos) return "a web page: the download gave no file";
  if (tags.starts_with('<') && tags.find("<svg") != std::string::npos) return "an SVG drawing";
  return tags.starts_with("<?xml") ? "an XML document" : "";
}

std::string binary_kind(std::string_view head) {
  for (const Signature& signature : kSignatures) {
    if (head.size() >= signature.at && head.substr(signature.at).starts_with(signature.bytes)) return signature.kind;
  }
  if (is_bmp(head)) return "a BMP picture";
  if (is_netpbm(head)) return "a Netpbm or PFM picture";
  if (is_onnx(head)) return "an ONNX model: give the weights that it was exported from";
  if (is_pickle(head)) return "a Python pickle";
  return is_safetensors(head) ? "a safetensors file" : "";
}

std::string_view head_of(std::span<const std::byte> file) {
  return {reinterpret_cast<const char*>(file.data()), std::min(file.size(), kMostBytes)};
}

}  // namespace

std::string file_kind(std::span<const std::byte> file) {
  if (file.empty()) return "an empty file";
  const std::string_view head = head_of(file);
  if (std::string kind = binary_kind(head); !kind.empty() || !is_text(head)) return kind;
  if (std::string kind = text_kind(head); !kind.empty()) return kind;
  const std::string_view text = without_mark_and_blanks(head);
  if (text.empty()) return "a text file of blanks";
  return "a text file that begins '" + printable(text.substr(0, text.find_first_of("\r\n")).substr(0, 40)) + "'";
}

std::string kind_unless_text(std::span<const std::byte> file) {
  const std::string_view head = head_of(file);
  return is_text(head) ? text_kind(head) : binary_kind(head);
}

}  // namespace depthstill
