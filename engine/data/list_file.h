// List files of depth data sets: one sample a line, "image depth" or "image depth focal". docs/data.md describes what
// else a line may hold.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/error.h"

namespace depthstill {

struct ListEntry {
  // Paths as the list has them, but without "./" and doubled "/"; depth is empty for the word None. In a Dataset they
  // start from its folders (ListPath::name of engine/data/list_folder.h).
  std::string image, depth;
  double focal = 0;                          // pixels; 0: not stated
  int line = 0;                              // counted from 1
  std::string image_tried{}, depth_tried{};  // ListPath::tried, in a Dataset
  std::string extra{};                       // a third path, as the list has it: a mask, which an evaluation may read
};

enum class ListOrder { kAsWritten, kByImage };  // kByImage: sorted by image path, as the reference does
enum class ListForm {
  kColumns,
  kFolders,  // a line is a folder that holds image.jpg and depth.png (MoGe's .index.txt)
};

// The lines of a list that cannot be used.
struct BadLines {
  static constexpr size_t kNamed = 20;
  std::vector<std::string> named;  // "LIST:LINE: expected ..., found ..." of the first ones
  int64_t count = 0;               // of all

  void add(std::string message);
  // Runs `f`; what it throws is added, "LIST:LINE: " before it.
  template <class F>
  void attempt(const std::string& where, const F& f) {
    try {
      f();
    } catch (const Error& error) {
      add(where + ": " + error.what());
    }
  }
  void check_none() const;  // throws Error with all that are named, in one line
};

// Puts "LIST:LINE: " before what `f` has to say.
template <class F>
auto at_line(const std::string& where, const F& f) {
  try {
    return f();
  } catch (const Error& error) {
    fail(where, ": ", error.what());
  }
}

// The entries of a list. Lines end in \n or \r\n, and the last one need not end. Lines of another form are left out and
// added to `bad`; where that is null, they throw Error "LIST:LINE: expected 3 columns (image depth focal) or 2 (image
// depth), found 4", all in one. A list without entries always throws.
std::vector<ListEntry> read_list(const std::string& path, ListOrder order = ListOrder::kAsWritten,
                                 BadLines* bad = nullptr, ListForm form = ListForm::kColumns);
std::vector<ListEntry> parse_list(const std::string& text, const std::string& name,
                                  ListOrder order = ListOrder::kAsWritten, BadLines* bad = nullptr,
                                  ListForm form = ListForm::kColumns);

// The path without "./" and doubled "/". A '/' in front, one, stays.
std::string plain_path(std::string_view path);

}  // namespace depthstill
