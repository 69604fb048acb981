// PyTorch checkpoints: archives and streams, and the pickles in them.
#include "engine/io/torch_file.h"
#include "tests/fuzz/archive.h"
#include "tests/fuzz/target.h"
#include "tests/fuzz/weights.h"

namespace depthstill::fuzz {
namespace {

void read(Input input) {
  static const InputFile file("weights.pth");
  file.write(input);
  read_all(TorchFile(file.path()));
}

void repair(Bytes& input) {
  if (!input.empty() && input[0] == 'P') repair_directory(input);
}

}  // namespace

Target torch_target() {
  using namespace std::string_view_literals;
  return {"torch",
          read,
          {"\x80\2"sv,
           "."sv,
           "("sv,
           ")"sv,
           "t"sv,
           "\x85"sv,
           "\x86"sv,
           "\x87"sv,
           "]"sv,
           "}"sv,
           "a"sv,
           "e"sv,
           "s"sv,
           "u"sv,
           "0"sv,
           "1"sv,
           "2"sv,
           "N"sv,
           "\x88"sv,
           "\x89"sv,
           "K\1"sv,
           "M\xff\xff"sv,
           "J\xff\xff\xff\xff"sv,
           "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f"sv,
           "\x8b\4\0\0\0\1\2\3\4"sv,
           "G\x7f\xf0\0\0\0\0\0\0"sv,
           "q\0"sv,
           "h\0"sv,
           "r\0\1\0\0"sv,
           "j\0\0\0\0"sv,
           "\x94"sv,
           "Q"sv,
           "R"sv,
           "b"sv,
           "\x81"sv,
           "\x92"sv,
           "\x93"sv,
           "ccollections\nOrderedDict\n"sv,
           "ctorch._utils\n_rebuild_tensor_v2\n"sv,
           "ctorch._utils\n_rebuild_tensor_v3\n"sv,
           "ctorch._utils\n_rebuild_parameter\n"sv,
           "ctorch\nHalfStorage\n"sv,
           "ctorch\nDoubleStorage\n"sv,
           "ctorch.storage\nUntypedStorage\n"sv,
           "ctorch\nSize\n"sv,
           "cos\nsystem\n"sv,
           "X\1\0\0\0a"sv,
           "X\x0a\0\0\0state_dict"sv,
           "\x8c\1b"sv,
           "X\7\0\0\0storage"sv,
           "X\1\0\0\0\n"sv,
           "big"sv,
           "PK\3\4"sv},
          repair};
}

}  // namespace depthstill::fuzz
