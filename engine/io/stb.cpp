// stb_image and stb_image_write, compiled once: PNG and JPEG from memory, nothing else.
#include <cstdlib>

#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STBI_WRITE_NO_STDIO
#include "engine/io/stb.h"
