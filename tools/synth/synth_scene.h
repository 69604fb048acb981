// Procedural scenes and the rays cast into them. World axes: x right, y up, z forward, metres. Everything is built of
// solid primitives, each upright and turned about the vertical axis.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "engine/io/image.h"
#include "engine/random.h"

namespace depthstill::synth {

struct Vec3 {
  float x = 0, y = 0, z = 0;
};
inline Vec3 operator+(Vec3 a, Vec3 b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
inline Vec3 operator-(Vec3 a, Vec3 b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
inline Vec3 operator*(Vec3 a, Vec3 b) { return {a.x * b.x, a.y * b.y, a.z * b.z}; }
inline Vec3 operator*(Vec3 a, float s) { return {a.x * s, a.y * s, a.z * s}; }
inline float dot(Vec3 a, Vec3 b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
inline float length(Vec3 a) { return std::sqrt(dot(a, a)); }
inline Vec3 normalize(Vec3 a) { return a * (1.0f / length(a)); }
inline Vec3 mix(Vec3 a, Vec3 b, float t) { return a * (1.0f - t) + b * t; }

enum class Solid : uint8_t {
  kBox,
  kFrustum,  // a box whose top is narrower: car cabins, roofs
  kEllipsoid,
  kCylinder,  // vertical
};

enum class Material : uint8_t {
  kPlain,
  kGround,
  kPavement,
  kFacade,
  kRoof,
  kCarBody,
  kCarCabin,
  kWheel,
  kBark,
  kLeaves,
  kHedge,
  kSign,
  kMetal,
  kWood,
  kFloor,
  kWall,
  kCeiling,
  kWindow,
  kPicture,
  kFabric,
  kBooks,
  kDrawers,
  kLamp,
};

struct Plane {
  Vec3 normal;
  float offset = 0;  // inside: dot(normal, p) <= offset
};

struct Primitive {
  Solid solid = Solid::kBox;
  Material material = Material::kPlain;
  Vec3 centre, half;  // half extents before turning
  float turn_cos = 1, turn_sin = 0;
  Vec3 colour{0.5f, 0.5f, 0.5f};
  uint32_t seed = 0;              // seed of its texture
  std::array<Plane, 6> planes{};  // kFrustum, local

  Vec3 to_local(Vec3 v) const { return {turn_cos * v.x - turn_sin * v.z, v.y, turn_sin * v.x + turn_cos * v.z}; }
  Vec3 to_world(Vec3 v) const { return {turn_cos * v.x + turn_sin * v.z, v.y, -turn_sin * v.x + turn_cos * v.z}; }
};

struct Camera {
  ImageSize size;
  float focal = 0, centre_x = 0, centre_y = 0;
  Vec3 position;
  std::array<Vec3, 3> axes{Vec3{1, 0, 0}, Vec3{0, 1, 0}, Vec3{0, 0, 1}};  // right, up, forward in the world

  // The ray goes through image position (x, y); its forward part is 1, so that the ray's parameter is the depth.
  Vec3 ray(float x, float y) const {
    return axes[0] * ((x - centre_x) / focal) + axes[1] * ((centre_y - y) / focal) + axes[2];
  }
};

// angles in radians; yaw to the right, pitch up, roll clockwise.
std::array<Vec3, 3> camera_axes(float yaw, float pitch, float roll);

struct Scene {
  Camera camera;
  std::vector<Primitive> primitives;
  bool outdoors = true;
  Vec3 light;  // direction to the sun outdoors, position of the lamp indoors
  Vec3 light_colour{1, 1, 1}, ambient{0.4f, 0.45f, 0.5f}, haze{0.75f, 0.8f, 0.85f};
  float haze_distance = 300;  // metres after which 63 % is haze
  float clouds = 0.5f;
  float road_half_width = 4, lane_width = 3.2f, crossing_z = -1000;  // metres for Material::kGround
  uint32_t seed = 0;

  Primitive& add(Solid solid, Material material, Vec3 centre, Vec3 half, Vec3 colour, float turn = 0);
  // top_*: share of the half extent that the top loses at the sides, front (far end) and back.
  Primitive& add_frustum(Material material, Vec3 centre, Vec3 half, float top_sides, float top_front, float top_back,
                         Vec3 colour, float turn = 0);
};

struct Hit {
  float t = 0;  // ray parameter; 0 = nothing hit
  int primitive = -1;
  Vec3 local, normal;  // position relative to the primitive, and its normal, both in the primitive's axes
};

// Hits of `primitive` with t in (0, best.t), or any t > 0 if best.t is 0; true if `best` was replaced.
bool intersect(const Scene& scene, int primitive, Vec3 origin, Vec3 direction, Hit& best);

// Smooth noise in [-1, 1] and its sum over octaves.
float noise(Vec3 p, uint32_t seed);
float fractal_noise(Vec3 p, int octaves, uint32_t seed);
uint32_t hash(uint32_t a, uint32_t b, uint32_t c = 0);
inline float hash_unit(uint32_t a, uint32_t b, uint32_t c = 0) {
  return static_cast<float>(hash(a, b, c) >> 8) * 0x1p-24f;
}

// Reflected colour of a material before lighting, linear RGB; `glow` is added unlit. position: in the world.
struct Surface {
  Vec3 colour, glow;
};
Surface surface_of(const Scene& scene, const Hit& hit, Vec3 position);
Vec3 sky_colour(const Scene& scene, Vec3 direction);

Scene make_street(Philox& random, ImageSize size);
Scene make_room(Philox& random, ImageSize size);

struct Rendering {
  Image8 image;
  std::vector<float> depth;  // distance along the camera's forward axis at pixel centres, metres, exact; 0 = sky
};
Rendering render(const Scene& scene, Philox& random);

}  // namespace depthstill::synth
