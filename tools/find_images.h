// The images that a command line names: files, and all that folders hold.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace depthstill {

struct FoundImage {
  std::string path;
  std::string name;  // for results: the path below its folder, or the file's name, without extension
};

struct FoundImages {
  std::vector<FoundImage> images;
  std::map<std::string, int64_t> left_out;  // kind of file in the folders (".tif", "links to nothing") -> how many
  std::vector<std::string> unreadable;      // a message for each folder that could not be searched
};

// Folders are searched with all that is below them, in the order of names, linked folders last and each folder once. A
// linked image or folder keeps the link's name. `out`, where results go, is not searched unless it is an input itself.
// Images whose names differ in nothing but the extension keep it (a_png, a_jpg), if results do not lie among the
// images. The same image under one name counts once. Throws Error for a folder without images.
FoundImages find_images(const std::vector<std::string>& inputs, const std::string& out);

// "1 .tif, 2 .webp"; empty if nothing was left out.
std::string left_out_text(const FoundImages& found);

}  // namespace depthstill
