// Colours of materials, computed from the position on the solid.
#include <algorithm>
#include <cmath>

#include "tools/synth/synth_scene.h"

namespace depthstill::synth {
namespace {

struct FacePoint {
  float u, v;  // metres along the face; v is up on upright faces
  float half_u, half_v;
};

FacePoint on_face(const Primitive& solid, const Hit& hit) {
  const Vec3 n{std::abs(hit.normal.x), std::abs(hit.normal.y), std::abs(hit.normal.z)};
  if (n.y > 0.7f) return {hit.local.x, hit.local.z, solid.half.x, solid.half.z};
  if (n.x > n.z) return {hit.local.z, hit.local.y, solid.half.z, solid.half.y};
  return {hit.local.x, hit.local.y, solid.half.x, solid.half.y};
}

float step_up(float edge, float value) { return value >= edge ? 1.0f : 0.0f; }
float fraction(float x) { return x - std::floor(x); }
uint32_t cell(float x) { return static_cast<uint32_t>(static_cast<int>(std::floor(x))); }
Vec3 grey(float level) { return {level, level, level}; }

Vec3 ground_colour(const Scene& scene, Vec3 p) {
  const float coarse = fractal_noise(p * 0.35f, 3, scene.seed), fine = noise(p * 9.0f, scene.seed + 7);
  const float across = std::abs(p.x), crossing = std::abs(p.z - scene.crossing_z);
  const bool on_crossing = crossing < scene.road_half_width;
  if (across > scene.road_half_width && !on_crossing) {  // grass beyond the pavement
    return mix({0.10f, 0.17f, 0.05f}, {0.24f, 0.24f, 0.10f}, std::clamp(0.5f + coarse + 0.25f * fine, 0.0f, 1.0f));
  }
  const Vec3 asphalt = grey(0.145f + 0.05f * coarse + 0.018f * fine);
  if (on_crossing) return asphalt;
  const float line = 0.06f, wear = step_up(-0.35f, coarse + 0.4f * fine);
  const float lane = fraction((p.x + scene.road_half_width) / scene.lane_width) * scene.lane_width;
  const bool divides = lane < line || lane > scene.lane_width - line;
  const bool dashed = divides && across < scene.road_half_width - 0.5f && fraction(p.z / 9.0f) < 0.45f;
  const bool edge = std::abs(across - scene.road_half_width + 0.25f) < line;
  const bool stop = crossing < scene.road_half_width + 3 && crossing > scene.road_half_width + 0.7f &&
                    fraction(p.x / 1.0f) < 0.5f;  // zebra
  if (dashed || edge || stop) return mix(asphalt, grey(0.62f), 0.85f * wear);
  // Patches of newer asphalt.
  const bool patch = hash_unit(cell(p.x / 2.3f), cell(p.z / 6.0f), scene.seed) < 0.07f;
  return patch ? asphalt * 0.7f : asphalt;
}

Vec3 pavement_colour(const Scene& scene, Vec3 p, const Hit& hit) {
  const float slab = hash_unit(cell(p.x / 0.5f), cell(p.z / 0.5f), scene.seed + 3);
  const bool joint = hit.normal.y > 0.5f && (fraction(p.x / 0.5f) < 0.05f || fraction(p.z / 0.5f) < 0.05f);
  return grey((0.30f + 0.07f * slab + 0.06f * fractal_noise(p * 1.1f, 2, scene.seed + 4)) * (joint ? 0.6f : 1.0f)) *
         Vec3{1.03f, 1, 0.95f};
}

Vec3 brick_colour(Vec3 base, FacePoint f, uint32_t seed) {
  const float row = f.v / 0.08f, column = f.u / 0.25f + 0.5f * static_cast<float>(cell(row) & 1);
  const bool mortar = fraction(row) < 0.14f || fraction(column) < 0.06f;
  return mortar ? grey(0.42f) : base * (0.8f + 0.4f * hash_unit(cell(row), cell(column), seed));
}

// Storeys with a row of windows each; shop fronts on the ground floor of some houses.
Surface facade(const Primitive& solid, const Hit& hit) {
  const FacePoint f = on_face(solid, hit);
  const float height = f.v + f.half_v, variety = hash_unit(solid.seed, 1), storey = 2.8f + 0.6f * variety;
  const float bay = 1.9f + 1.6f * hash_unit(solid.seed, 2), floor = std::floor(height / storey);
  Vec3 wall = hash_unit(solid.seed, 3) < 0.35f ? brick_colour(solid.colour, f, solid.seed) : solid.colour;
  wall = wall * (0.92f + 0.22f * fractal_noise({f.u * 0.6f, f.v * 0.25f, 0}, 3, solid.seed));
  if (std::abs(hit.normal.y) > 0.7f) return {grey(0.2f), {}};
  if (height < 0.5f) wall = wall * 0.55f;
  const bool shop = floor < 1 && hash_unit(solid.seed, 4) < 0.4f;
  const float bays = std::max(1.0f, std::floor(2 * f.half_u / bay)), width = 2 * f.half_u / bays;
  const float column = (f.u + f.half_u) / width, across = (fraction(column) - 0.5f) * width;
  const float up = height - floor * storey;
  const float half = shop ? 0.42f * width : (0.26f + 0.1f * hash_unit(solid.seed, 5)) * width;
  const float sill = shop ? 0.4f : 0.85f, lintel = shop ? storey - 0.7f : storey - 0.5f;
  if (shop && up > storey - 0.65f && up < storey - 0.1f) {  // sign above the shop
    return {Vec3{hash_unit(solid.seed, 6), hash_unit(solid.seed, 7), hash_unit(solid.seed, 8)} * 0.6f, {}};
  }
  if (height > 2 * f.half_v - 0.45f) return {wall * 0.75f, {}};  // cornice
  if (std::abs(across) > half || up < sill || up > lintel) return {wall, {}};
  const bool frame = half - std::abs(across) < 0.07f || up - sill < 0.07f || lintel - up < 0.07f ||
                     (!shop && std::abs(across) < 0.03f);
  if (frame) return {grey(0.75f) * mix({1, 1, 1}, solid.colour, hash_unit(solid.seed, 9)), {}};
  const uint32_t pane = hash(cell(column), static_cast<uint32_t>(floor), solid.seed);
  const float curtain = hash_unit(pane, 1);
  if (curtain < 0.3f) return {grey(0.35f + 0.4f * hash_unit(pane, 2)) * Vec3{1, 0.96f, 0.88f}, {}};
  const float reflection = (up - sill) / (lintel - sill);  // brighter sky towards the top
  return {{0.05f, 0.06f, 0.08f}, Vec3{0.10f, 0.13f, 0.17f} * (0.3f + reflection * hash_unit(pane, 3))};
}

Surface car_body(const Primitive& solid, const Hit& hit) {
  const FacePoint f = on_face(solid, hit);
  const bool end = std::abs(hit.normal.z) > 0.7f, rear = hit.local.z < 0;
  if (end && std::abs(f.v) < 0.5f * f.half_v && std::abs(f.u) > 0.68f * f.half_u) {
    return rear ? Surface{{0.45f, 0.02f, 0.02f}, {0.06f, 0, 0}} : Surface{{0.8f, 0.8f, 0.75f}, {0.1f, 0.1f, 0.08f}};
  }
  if (end && std::abs(f.u) < 0.27f && std::abs(f.v + 0.35f * f.half_v) < 0.07f) return {grey(0.7f), {}};
  if (end && f.v < -0.6f * f.half_v) return {grey(0.06f), {}};
  const float shine = hit.normal.y > 0.7f ? 0.10f : 0.03f * step_up(0.55f, f.v / f.half_v);
  const bool seam = std::abs(hit.normal.x) > 0.7f && fraction(f.u / 1.05f + 0.5f) < 0.018f;
  return {seam ? solid.colour * 0.4f : solid.colour, grey(shine)};
}

Surface car_cabin(const Primitive& solid, const Hit& hit) {
  if (hit.normal.y > 0.8f) return {solid.colour, grey(0.09f)};
  const FacePoint f = on_face(solid, hit);
  const bool side = std::abs(hit.normal.x) > 0.6f;
  const bool pillar = side && (std::abs(std::abs(f.u) - 0.1f * f.half_u) < 0.04f || std::abs(f.u) > 0.82f * f.half_u);
  if (pillar || f.v > 0.82f * f.half_v || f.v < -0.9f * f.half_v) return {solid.colour, {}};
  return {grey(0.03f), Vec3{0.06f, 0.075f, 0.09f} * (1 + f.v / f.half_v)};
}

Vec3 leaves_colour(const Primitive& solid, const Hit& hit, Vec3 p) {
  const float coarse = fractal_noise(hit.local * 2.2f, 2, solid.seed), fine = noise(p * 11.0f, solid.seed + 5);
  return solid.colour * std::clamp(0.85f + 0.7f * coarse + 0.45f * fine, 0.15f, 1.8f);
}

Vec3 wood_colour(const Primitive& solid, Vec3 p) {
  const float rings =
      std::sin(14 * (p.y + 0.6f * p.x) + 5 * fractal_noise({p.x * 1.5f, p.y * 1.5f, p.z * 7}, 2, solid.seed));
  return solid.colour * (0.85f + 0.15f * rings + 0.1f * noise(p * 23.0f, solid.seed));
}

Vec3 floor_colour(const Primitive& solid, Vec3 p) {
  const float kind = hash_unit(solid.seed, 1);
  if (kind < 0.5f) {  // boards
    const float board = p.x / 0.14f, joint = p.z / 1.2f + 0.37f * static_cast<float>(cell(board) & 3);
    const float tone = 0.75f + 0.45f * hash_unit(cell(board), cell(joint), solid.seed);
    const bool gap = fraction(board) < 0.04f || fraction(joint) < 0.005f;
    return solid.colour * ((gap ? 0.45f : tone) + 0.12f * noise({p.x * 30, 0, p.z * 2}, solid.seed));
  }
  if (kind < 0.75f) {  // tiles
    const bool joint = fraction(p.x / 0.4f) < 0.02f || fraction(p.z / 0.4f) < 0.02f;
    const float tone = 0.9f + 0.2f * hash_unit(cell(p.x / 0.4f), cell(p.z / 0.4f), solid.seed);
    return joint ? grey(0.3f) : mix(solid.colour, grey(0.6f), 0.6f) * tone;
  }
  return solid.colour * (0.9f + 0.25f * noise(p * 60.0f, solid.seed) + 0.1f * fractal_noise(p * 3.0f, 2, solid.seed));
}

Vec3 wall_colour(const Primitive& solid, const Hit& hit) {
  const FacePoint f = on_face(solid, hit);
  if (f.v + f.half_v < 0.09f) return grey(0.7f);  // skirting
  const float stripes = hash_unit(solid.seed, 1) < 0.3f ? 0.08f * step_up(0.5f, fraction(f.u / 0.24f)) : 0.0f;
  return solid.colour * (0.97f - stripes + 0.05f * fractal_noise({f.u, f.v, 0}, 3, solid.seed));
}

Surface window_pane(const Primitive& solid, const Hit& hit) {
  const FacePoint f = on_face(solid, hit);
  const float rim = std::min(f.half_u - std::abs(f.u), f.half_v - std::abs(f.v));
  if (rim < 0.06f || std::abs(f.u) < 0.025f) return {grey(0.8f), {}};
  const float height = f.v / f.half_v + 0.25f * noise({f.u * 3, 0, 0}, solid.seed);
  return {grey(0.05f), height > -0.2f ? Vec3{0.75f, 0.85f, 1.0f} : Vec3{0.25f, 0.38f, 0.2f}};
}

Vec3 picture_colour(const Primitive& solid, const Hit& hit) {
  const FacePoint f = on_face(solid, hit);
  if (std::min(f.half_u - std::abs(f.u), f.half_v - std::abs(f.v)) < 0.03f) return grey(0.12f);
  const float a = fractal_noise({f.u * 5, f.v * 5, 1}, 3, solid.seed),
              b = fractal_noise({f.u * 3, f.v * 6, 9}, 3, solid.seed + 1);
  return Vec3{0.5f + a, 0.45f + 0.7f * b, 0.5f - 0.8f * a * b} * 0.9f;
}

Vec3 books_colour(const Primitive& solid, const Hit& hit) {
  const FacePoint f = on_face(solid, hit);
  const float shelf = (f.v + f.half_v) / 0.36f, along = f.u / 0.045f;
  const float up = fraction(shelf);
  const uint32_t book = hash(cell(along), cell(shelf), solid.seed);
  if (up < 0.07f || std::abs(hit.normal.z) < 0.5f) return solid.colour;
  if (up > 0.6f + 0.3f * hash_unit(book, 1) || hash_unit(book, 5) < 0.1f) return grey(0.04f);
  return Vec3{0.1f + 0.6f * hash_unit(book, 2), 0.1f + 0.5f * hash_unit(book, 3), 0.1f + 0.5f * hash_unit(book, 4)} *
         (fraction(along) < 0.12f ? 0.5f : 1.0f);
}

Vec3 drawers_colour(const Primitive& solid, const Hit& hit, Vec3 p) {
  const FacePoint f = on_face(solid, hit);
  const float row = (f.v + f.half_v) / 0.3f, column = f.u / 0.55f + 0.5f;
  if (std::abs(hit.normal.z) < 0.7f) return wood_colour(solid, p);
  if (fraction(row) < 0.04f || fraction(column) < 0.025f) return solid.colour * 0.35f;
  const bool handle = std::abs(fraction(row) - 0.5f) < 0.06f && std::abs(fraction(column) - 0.5f) < 0.1f;
  return handle ? grey(0.65f) : wood_colour(solid, p);
}

Vec3 sign_colour(const Primitive& solid, const Hit& hit) {
  const FacePoint f = on_face(solid, hit);
  const float r = std::max(std::abs(f.u) / f.half_u, std::abs(f.v) / f.half_v);
  if (r > 0.8f) return solid.colour;
  const bool mark =
      std::abs(f.u) < 0.25f * f.half_u || (std::abs(f.v) < 0.2f * f.half_v && hash_unit(solid.seed, 1) < 0.5f);
  return mark ? grey(0.08f) : grey(0.8f);
}

Vec3 wheel_colour(const Primitive& solid, const Hit& hit) {
  const float y = hit.local.y / solid.half.y, z = hit.local.z / solid.half.z, r2 = y * y + z * z;
  return r2 < 0.4f ? grey(0.25f + 0.25f * step_up(0.3f, std::sin(5 * std::atan2(y, z)))) : grey(0.03f);
}

}  // namespace

Surface surface_of(const Scene& scene, const Hit& hit, Vec3 p) {
  const Primitive& solid = scene.primitives[static_cast<size_t>(hit.primitive)];
  switch (solid.material) {
    case Material::kPlain:
      return {solid.colour * (0.95f + 0.1f * fractal_noise(p * 4.0f, 2, solid.seed)), {}};
    case Material::kGround:
      return {ground_colour(scene, p), {}};
    case Material::kPavement:
      return {pavement_colour(scene, p, hit), {}};
    case Material::kFacade:
      return facade(solid, hit);
    case Material::kRoof: {
      const bool joint = fraction(hit.local.z / 0.3f) < 0.12f || fraction(hit.local.y / 0.25f) < 0.15f;
      return {solid.colour * ((joint ? 0.7f : 1.0f) + 0.2f * fractal_noise(p, 2, solid.seed)), {}};
    }
    case Material::kCarBody:
      return car_body(solid, hit);
    case Material::kCarCabin:
      return car_cabin(solid, hit);
    case Material::kWheel:
      return {wheel_colour(solid, hit), {}};
    case Material::kBark:
      return {solid.colour * (0.8f + 0.5f * noise({p.x * 20, p.y * 4, p.z * 20}, solid.seed)), {}};
    case Material::kLeaves:
    case Material::kHedge:
      return {leaves_colour(solid, hit, p), {}};
    case Material::kSign:
      return {sign_colour(solid, hit), {}};
    case Material::kMetal:
      return {solid.colour, grey(0.02f)};
    case Material::kWood:
      return {wood_colour(solid, p), {}};
    case Material::kFloor:
      return {floor_colour(solid, p), {}};
    case Material::kWall:
      return {wall_colour(solid, hit), {}};
    case Material::kCeiling:
      return {grey(0.8f + 0.03f * fractal_noise(p * 2.0f, 2, solid.seed)), {}};
    case Material::kWindow:
      return window_pane(solid, hit);
    case Material::kPicture:
      return {picture_colour(solid, hit), {}};
    case Material::kFabric:
      return {
          solid.colour * (0.85f + 0.2f * noise(p * 45.0f, solid.seed) + 0.2f * fractal_noise(p * 3.0f, 2, solid.seed)),
          {}};
    case Material::kBooks:
      return {books_colour(solid, hit), {}};
    case Material::kDrawers:
      return {drawers_colour(solid, hit, p), {}};
    case Material::kLamp:
      return {grey(0.9f), Vec3{0.9f, 0.85f, 0.7f}};
  }
  return {};
}

Vec3 sky_colour(const Scene& scene, Vec3 direction) {
  const float up = std::max(direction.y, 0.0f);
  const Vec3 clear = mix(scene.haze, {0.22f, 0.42f, 0.78f}, std::min(1.0f, std::sqrt(up) * 1.3f));
  const float scale = 1.6f / (up + 0.12f);
  const float cover = fractal_noise({direction.x * scale, direction.z * scale, 0.3f}, 4, scene.seed + 11);
  const float cloud = std::clamp((cover + scene.clouds - 0.25f) * 2.2f, 0.0f, 1.0f);
  return mix(clear, grey(0.86f), cloud * 0.85f);
}

}  // namespace depthstill::synth
