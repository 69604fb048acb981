// List files of depth data sets: one sample a line, "image depth focal" separated by blanks, depth the word None
// where a sample has no ground truth.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace depthstill {

struct ListEntry {
  std::string image, depth;  // relative to the data set's root, without a leading '/'; depth empty for None
  double focal = 0;          // pixels
  int line = 0;              // counted from 1
};

enum class ListOrder { kAsWritten, kByImage };  // kByImage: sorted by image path, as the reference does

// Lines may end in \n or \r\n, and the last one need not end. Throws Error "LIST:LINE: expected 3 columns (image depth
// focal), found 2" for a line of another form, and for a list without entries.
std::vector<ListEntry> read_list(const std::string& path, ListOrder order = ListOrder::kAsWritten);
std::vector<ListEntry> parse_list(const std::string& text, const std::string& name,
                                  ListOrder order = ListOrder::kAsWritten);

}  // namespace depthstill
