// Casts one ray through each pixel's centre, and four more where surfaces or colours change, against the primitives of
// the pixel's tile, nearest first.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "tools/synth/synth_scene.h"

namespace depthstill::synth {
namespace {

constexpr int kTile = 32;  // pixels

struct Candidate {
  int primitive;
  float nearest;  // no point of it is nearer, along the forward axis
};

// Screen rectangle and nearest depth of a primitive's bounding box; the whole screen if it reaches behind the camera.
struct Extent {
  float left, top, right, bottom, nearest;
};

Extent extent_of(const Camera& camera, const Primitive& solid) {
  Extent extent{1e9f, 1e9f, -1e9f, -1e9f, 1e9f};
  for (int corner = 0; corner < 8; ++corner) {
    const Vec3 local =
        solid.half * Vec3{corner & 1 ? 1.0f : -1.0f, corner & 2 ? 1.0f : -1.0f, corner & 4 ? 1.0f : -1.0f};
    const Vec3 p = solid.to_world(local) + solid.centre - camera.position;
    const float z = dot(p, camera.axes[2]);
    extent.nearest = std::min(extent.nearest, z);
    if (z < 0.05f) continue;
    const float x = camera.centre_x + camera.focal * dot(p, camera.axes[0]) / z;
    const float y = camera.centre_y - camera.focal * dot(p, camera.axes[1]) / z;
    extent.left = std::min(extent.left, x);
    extent.right = std::max(extent.right, x);
    extent.top = std::min(extent.top, y);
    extent.bottom = std::max(extent.bottom, y);
  }
  if (extent.nearest < 0.05f) {
    const bool seen = extent.right > extent.left;
    return seen ? Extent{-1e9f, -1e9f, 1e9f, 1e9f, 0} : Extent{1, 1, 0, 0, 0};
  }
  return extent;
}

// A SunGrid tells which solids can shade a point from the sun: a grid over the plane that the light falls on is filled
// with their bounding spheres. Points outside it lie in the light.
class SunGrid {
 public:
  explicit SunGrid(const Scene& scene) : middle_(scene.camera.position + Vec3{0, 0, 60}) {
    across_ = normalize({scene.light.z, 0, -scene.light.x});
    along_ =
        normalize({-scene.light.x * scene.light.y, 1 - scene.light.y * scene.light.y, -scene.light.z * scene.light.y});
    for (int i = 0; i < static_cast<int>(scene.primitives.size()); ++i) {
      const Primitive& solid = scene.primitives[static_cast<size_t>(i)];
      if (solid.material != Material::kGround && solid.material != Material::kLamp)
        add(i, solid.centre, length(solid.half));
    }
  }

  const std::vector<int>& above(Vec3 position) const {
    const int u = cell(dot(position - middle_, across_)), v = cell(dot(position - middle_, along_));
    return u < 0 || v < 0 || u >= kCells || v >= kCells ? nothing_ : cells_[static_cast<size_t>(v * kCells + u)];
  }

 private:
  static constexpr int kCells = 96;
  static constexpr float kCellMetres = 2.5f;

  static int cell(float metres) { return static_cast<int>(std::floor(metres / kCellMetres)) + kCells / 2; }

  void add(int primitive, Vec3 centre, float radius) {
    const float u = dot(centre - middle_, across_), v = dot(centre - middle_, along_);
    const int u0 = std::max(cell(u - radius), 0), u1 = std::min(cell(u + radius), kCells - 1);
    const int v0 = std::max(cell(v - radius), 0), v1 = std::min(cell(v + radius), kCells - 1);
    for (int y = v0; y <= v1; ++y) {
      for (int x = u0; x <= u1; ++x) cells_[static_cast<size_t>(y * kCells + x)].push_back(primitive);
    }
  }

  Vec3 middle_, across_, along_;
  std::vector<std::vector<int>> cells_{static_cast<size_t>(kCells * kCells)};
  std::vector<int> nothing_;
};

class Renderer {
 public:
  explicit Renderer(const Scene& scene) : scene_(scene), camera_(scene.camera), sun_(scene) {
    for (int i = 0; i < static_cast<int>(scene.primitives.size()); ++i) all_.push_back(i);
    tiles_x_ = (camera_.size.width + kTile - 1) / kTile;
    tiles_.resize(static_cast<size_t>(tiles_x_ * ((camera_.size.height + kTile - 1) / kTile)));
    for (int i = 0; i < static_cast<int>(scene.primitives.size()); ++i) add_to_tiles(i);
    for (std::vector<Candidate>& tile : tiles_) {
      std::sort(tile.begin(), tile.end(), [](const Candidate& a, const Candidate& b) {
        return a.nearest != b.nearest ? a.nearest < b.nearest : a.primitive < b.primitive;
      });
    }
  }

  Rendering run(Philox& random) {
    const auto width = static_cast<size_t>(camera_.size.width), height = static_cast<size_t>(camera_.size.height);
    std::vector<Vec3> colours(width * height);
    std::vector<int> surfaces(width * height);
    Rendering out;
    out.depth.resize(width * height);
    for (size_t y = 0; y < height; ++y) {
      for (size_t x = 0; x < width; ++x) {
        const size_t i = y * width + x;
        const Hit hit = cast(static_cast<float>(x), static_cast<float>(y), colours[i]);
        out.depth[i] = hit.t;
        // Primitive and face; faces are told apart by their normal's direction.
        surfaces[i] =
            hit.primitive < 0 ? -1 : hit.primitive * 8 + static_cast<int>(2.5f + 2 * hit.normal.y + hit.normal.x);
      }
    }
    smooth_edges(surfaces, colours);
    out.image = develop(colours, random);
    return out;
  }

 private:
  void add_to_tiles(int primitive) {
    const Extent extent = extent_of(camera_, scene_.primitives[static_cast<size_t>(primitive)]);
    const auto tile_range = [](float begin, float end, int size) {
      const float last = static_cast<float>(size - 1);
      return std::pair(static_cast<int>(std::clamp(begin - 1, 0.0f, last)) / kTile,
                       static_cast<int>(std::clamp(end + 1, 0.0f, last)) / kTile);
    };
    if (extent.right < -1 || extent.bottom < -1 || extent.left > static_cast<float>(camera_.size.width) ||
        extent.top > static_cast<float>(camera_.size.height) || extent.left > extent.right) {
      return;
    }
    const auto [x0, x1] = tile_range(extent.left, extent.right, camera_.size.width);
    const auto [y0, y1] = tile_range(extent.top, extent.bottom, camera_.size.height);
    for (int ty = y0; ty <= y1; ++ty) {
      for (int tx = x0; tx <= x1; ++tx) {
        tiles_[static_cast<size_t>(ty * tiles_x_ + tx)].push_back({primitive, extent.nearest});
      }
    }
  }

  Hit cast(float x, float y, Vec3& colour) const {
    const Vec3 direction = camera_.ray(x, y);
    const int tx = static_cast<int>(x + 0.5f) / kTile, ty = static_cast<int>(y + 0.5f) / kTile;
    Hit hit;
    for (const Candidate& candidate : tiles_[static_cast<size_t>(ty * tiles_x_ + tx)]) {
      if (hit.t > 0 && candidate.nearest > hit.t) break;
      intersect(scene_, candidate.primitive, camera_.position, direction, hit);
    }
    colour = hit.primitive < 0 ? sky_colour(scene_, normalize(direction)) : shade(hit, direction);
    return hit;
  }

  bool in_shadow(Vec3 position, Vec3 to_light, float distance, int self) const {
    for (const int i : scene_.outdoors ? sun_.above(position) : all_) {
      const Primitive& solid = scene_.primitives[static_cast<size_t>(i)];
      if (solid.material == Material::kLamp) continue;
      if (i == self && solid.solid == Solid::kBox) continue;  // a box's lit face never lies in its own shadow
      // Most solids are far from the ray: compare with their bounding sphere first.
      const Vec3 offset = solid.centre - position;
      const float along = dot(offset, to_light), radius2 = dot(solid.half, solid.half);
      if (dot(offset, offset) - along * along > radius2 || along < -std::sqrt(radius2)) continue;
      Hit hit;
      hit.t = distance;
      if (intersect(scene_, i, position, to_light, hit)) return true;
    }
    return false;
  }

  Vec3 shade(const Hit& hit, Vec3 direction) const {
    const Primitive& solid = scene_.primitives[static_cast<size_t>(hit.primitive)];
    const Vec3 position = camera_.position + direction * hit.t;
    const Vec3 normal = solid.to_world(hit.normal);
    const Surface surface = surface_of(scene_, hit, position);

    Vec3 to_light = scene_.light;
    float distance = std::numeric_limits<float>::max(), strength = 1;
    if (!scene_.outdoors) {
      to_light = scene_.light - position;
      distance = length(to_light);
      to_light = to_light * (1 / distance);
      strength = 5.0f / (1.5f + distance * distance);
    }
    const float facing = dot(normal, to_light);
    const float leafy = solid.material == Material::kLeaves ? 0.3f : 0.0f;  // light passes through
    float lit = std::max(facing * (1 - leafy) + leafy, 0.0f);
    if (lit > 0 && in_shadow(position + normal * 0.004f, to_light, distance - 0.02f, hit.primitive)) lit = 0;
    // Less sky is seen near the ground and from below.
    const float openness = 0.65f + 0.35f * normal.y;
    const float low = scene_.outdoors ? std::clamp(0.6f + position.y * 0.8f, 0.6f, 1.0f) : 1.0f;
    const Vec3 light =
        scene_.ambient * (openness * (std::abs(normal.y) > 0.9f ? 1.0f : low)) + scene_.light_colour * (lit * strength);
    const Vec3 colour = surface.colour * light + surface.glow;
    return scene_.outdoors ? mix(scene_.haze, colour, std::exp(-hit.t / scene_.haze_distance)) : colour;
  }

  void smooth_edges(const std::vector<int>& surfaces, std::vector<Vec3>& colours) const {
    const int width = camera_.size.width, height = camera_.size.height;
    const std::vector<Vec3> centres = colours;
    const auto differs = [&](size_t a, size_t b) {
      const Vec3 d = centres[a] - centres[b];
      return surfaces[a] != surfaces[b] || dot(d, d) > 0.006f;
    };
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        const auto i = static_cast<size_t>(y * width + x), stride = static_cast<size_t>(width);
        const bool edge = (x > 0 && differs(i, i - 1)) || (x + 1 < width && differs(i, i + 1)) ||
                          (y > 0 && differs(i, i - stride)) || (y + 1 < height && differs(i, i + stride));
        if (!edge) continue;
        constexpr std::array<std::pair<float, float>, 4> kOffsets{
            {{-0.375f, -0.125f}, {0.125f, -0.375f}, {0.375f, 0.125f}, {-0.125f, 0.375f}}};
        Vec3 sum = centres[i];
        for (const auto& [dx, dy] : kOffsets) {
          Vec3 colour;
          cast(static_cast<float>(x) + dx, static_cast<float>(y) + dy, colour);
          sum = sum + colour;
        }
        colours[i] = sum * 0.2f;
      }
    }
  }

  // Exposure, vignetting, gamma and sensor noise.
  Image8 develop(const std::vector<Vec3>& colours, Philox& random) const {
    const ImageSize size = camera_.size;
    const auto exposure = static_cast<float>(random.uniform(0.9, 1.35)),
               grain = static_cast<float>(random.uniform(1, 3));
    Vec3 white{static_cast<float>(random.uniform(0.95, 1.05)), 1, static_cast<float>(random.uniform(0.95, 1.05))};
    const uint32_t seed = random.bits();
    std::array<float, 4096> gamma;  // 255 x^(1 / 2.2), by the square root of x
    for (size_t i = 0; i < gamma.size(); ++i) gamma[i] = 255 * std::pow(static_cast<float>(i) / 4095, 2 / 2.2f);
    Image8 image{size.width, size.height, {}};
    image.rgb.reserve(colours.size() * 3);
    const auto w = static_cast<float>(size.width), h = static_cast<float>(size.height);
    for (size_t i = 0; i < colours.size(); ++i) {
      const float x = static_cast<float>(i % static_cast<size_t>(size.width)) / w - 0.5f;
      const float y = static_cast<float>(i / static_cast<size_t>(size.width)) / h - 0.5f;
      const Vec3 light = colours[i] * white * (exposure * (1 - 0.35f * (x * x + y * y)));
      const float channels[] = {light.x, light.y, light.z};
      for (uint32_t c = 0; c < 3; ++c) {
        const float tone = gamma[static_cast<size_t>(std::sqrt(std::clamp(channels[c], 0.0f, 1.0f)) * 4095 + 0.5f)];
        const uint32_t bits = hash(static_cast<uint32_t>(i), c, seed);  // four bytes' sum: near to normal
        const auto bytes = static_cast<float>((bits & 255) + (bits >> 8 & 255) + (bits >> 16 & 255) + (bits >> 24));
        image.rgb.push_back(static_cast<uint8_t>(std::clamp(tone + grain * (bytes - 510) / 148 + 0.5f, 0.0f, 255.0f)));
      }
    }
    return image;
  }

  const Scene& scene_;
  const Camera& camera_;
  const SunGrid sun_;
  std::vector<int> all_;
  int tiles_x_ = 0;
  std::vector<std::vector<Candidate>> tiles_;
};

}  // namespace

Rendering render(const Scene& scene, Philox& random) { return Renderer(scene).run(random); }

}  // namespace depthstill::synth
