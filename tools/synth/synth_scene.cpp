#include "tools/synth/synth_scene.h"

#include <algorithm>
#include <limits>

namespace depthstill::synth {
namespace {

constexpr float kNearest = 1e-4f;

bool hit_box(const Primitive& box, Vec3 o, Vec3 d, float limit, Hit& hit) {
  const float origin[] = {o.x, o.y, o.z}, direction[] = {d.x, d.y, d.z}, half[] = {box.half.x, box.half.y, box.half.z};
  float enter = kNearest, leave = limit;
  int axis = -1;
  for (int k = 0; k < 3; ++k) {
    const float inverse = 1.0f / direction[k];  // infinite for a parallel ray, which the comparisons then sort out
    const float reach = half[k] * std::abs(inverse), middle = -origin[k] * inverse;
    if (!(std::abs(direction[k]) > 1e-12f)) {
      if (std::abs(origin[k]) > half[k]) return false;
      continue;
    }
    if (middle - reach > enter) {
      enter = middle - reach;
      axis = k;
    }
    leave = std::min(leave, middle + reach);
    if (enter >= leave) return false;
  }
  if (axis < 0) return false;  // the ray begins inside
  hit.t = enter;
  hit.normal = {axis == 0 ? -std::copysign(1.0f, d.x) : 0.0f, axis == 1 ? -std::copysign(1.0f, d.y) : 0.0f,
                axis == 2 ? -std::copysign(1.0f, d.z) : 0.0f};
  return true;
}

bool hit_frustum(const Primitive& solid, Vec3 o, Vec3 d, float limit, Hit& hit) {
  float enter = kNearest, leave = limit;
  const Plane* face = nullptr;
  for (const Plane& plane : solid.planes) {
    const float along = dot(plane.normal, d), room = plane.offset - dot(plane.normal, o);
    if (along < 0) {
      if (room / along > enter) {
        enter = room / along;
        face = &plane;
      }
    } else if (along > 0) {
      leave = std::min(leave, room / along);
    } else if (room < 0) {
      return false;
    }
    if (enter >= leave) return false;
  }
  if (face == nullptr) return false;
  hit.t = enter;
  hit.normal = face->normal;
  return true;
}

bool hit_ellipsoid(const Primitive& solid, Vec3 o, Vec3 d, float limit, Hit& hit) {
  const Vec3 scale{1 / solid.half.x, 1 / solid.half.y, 1 / solid.half.z};
  const Vec3 p = o * scale, v = d * scale;
  const float a = dot(v, v), b = dot(p, v), c = dot(p, p) - 1, discriminant = b * b - a * c;
  if (discriminant <= 0) return false;
  const float t = (-b - std::sqrt(discriminant)) / a;
  if (t <= kNearest || t >= limit) return false;
  hit.t = t;
  hit.normal = normalize((p + v * t) * scale);
  return true;
}

bool hit_cylinder(const Primitive& solid, Vec3 o, Vec3 d, float limit, Hit& hit) {
  const float r = solid.half.x, h = solid.half.y;
  const float a = d.x * d.x + d.z * d.z, b = o.x * d.x + o.z * d.z, c = o.x * o.x + o.z * o.z - r * r;
  const float discriminant = b * b - a * c;
  if (discriminant <= 0 || a <= 0) return false;
  const float t = (-b - std::sqrt(discriminant)) / a, y = o.y + t * d.y;
  if (t > kNearest && t < limit && std::abs(y) <= h) {
    hit.t = t;
    hit.normal = {(o.x + t * d.x) / r, 0, (o.z + t * d.z) / r};
    return true;
  }
  const float cap = d.y < 0 ? h : -h, s = (cap - o.y) / d.y, x = o.x + s * d.x, z = o.z + s * d.z;
  if (!(s > kNearest && s < limit) || x * x + z * z > r * r) return false;
  hit.t = s;
  hit.normal = {0, std::copysign(1.0f, cap), 0};
  return true;
}

// Leaves have gaps: what is behind shows through.
bool is_gap(const Primitive& solid, Vec3 local) {
  return solid.material == Material::kLeaves && fractal_noise(local * 4.5f, 2, solid.seed) < -0.16f;
}

}  // namespace

std::array<Vec3, 3> camera_axes(float yaw, float pitch, float roll) {
  const float cy = std::cos(yaw), sy = std::sin(yaw), cp = std::cos(pitch), sp = std::sin(pitch);
  const Vec3 forward{sy * cp, sp, cy * cp}, level_right{cy, 0, -sy};
  const Vec3 level_up{-sy * sp, cp, -cy * sp};
  const float cr = std::cos(roll), sr = std::sin(roll);
  return {level_right * cr - level_up * sr, level_right * sr + level_up * cr, forward};
}

Primitive& Scene::add(Solid solid, Material material, Vec3 centre, Vec3 half, Vec3 colour, float turn) {
  Primitive& added = primitives.emplace_back();
  added.solid = solid;
  added.material = material;
  added.centre = centre;
  added.half = half;
  added.turn_cos = std::cos(turn);
  added.turn_sin = std::sin(turn);
  added.colour = colour;
  added.seed = hash(seed, static_cast<uint32_t>(primitives.size()));
  return added;
}

Primitive& Scene::add_frustum(Material material, Vec3 centre, Vec3 half, float top_sides, float top_front,
                              float top_back, Vec3 colour, float turn) {
  Primitive& solid = add(Solid::kFrustum, material, centre, half, colour, turn);
  const auto side = [&](float x, float z, float extent, float lost) {
    const Vec3 normal = normalize({x * 2 * half.y, extent * lost, z * 2 * half.y});
    return Plane{normal, dot(normal, {x * half.x, -half.y, z * half.z})};
  };
  solid.planes = {Plane{{0, -1, 0}, half.y},      Plane{{0, 1, 0}, half.y},      side(1, 0, half.x, top_sides),
                  side(-1, 0, half.x, top_sides), side(0, 1, half.z, top_front), side(0, -1, half.z, top_back)};
  return solid;
}

bool intersect(const Scene& scene, int primitive, Vec3 origin, Vec3 direction, Hit& best) {
  const Primitive& solid = scene.primitives[static_cast<size_t>(primitive)];
  const Vec3 o = solid.to_local(origin - solid.centre), d = solid.to_local(direction);
  const float limit = best.t > 0 ? best.t : std::numeric_limits<float>::max();
  Hit hit;
  bool found = false;
  switch (solid.solid) {
    case Solid::kBox:
      found = hit_box(solid, o, d, limit, hit);
      break;
    case Solid::kFrustum:
      found = hit_frustum(solid, o, d, limit, hit);
      break;
    case Solid::kEllipsoid:
      found = hit_ellipsoid(solid, o, d, limit, hit);
      break;
    case Solid::kCylinder:
      found = hit_cylinder(solid, o, d, limit, hit);
      break;
  }
  if (!found) return false;
  hit.local = o + d * hit.t;
  if (is_gap(solid, hit.local)) return false;
  hit.primitive = primitive;
  best = hit;
  return true;
}

uint32_t hash(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t h = a * 0x9E3779B1u ^ (b + 0x7F4A7C15u) * 0x85EBCA77u ^ (c + 0x165667B1u) * 0xC2B2AE3Du;
  h = (h ^ (h >> 15)) * 0x2C1B3C6Du;
  h = (h ^ (h >> 12)) * 0x297A2D39u;
  return h ^ (h >> 15);
}

float noise(Vec3 p, uint32_t seed) {
  const float fx = std::floor(p.x), fy = std::floor(p.y), fz = std::floor(p.z);
  const auto ix = static_cast<uint32_t>(static_cast<int>(fx)), iy = static_cast<uint32_t>(static_cast<int>(fy)),
             iz = static_cast<uint32_t>(static_cast<int>(fz));
  const auto smooth = [](float t) { return t * t * (3 - 2 * t); };
  const float u = smooth(p.x - fx), v = smooth(p.y - fy), w = smooth(p.z - fz);
  const auto corner = [&](uint32_t dx, uint32_t dy, uint32_t dz) {
    return hash_unit((ix + dx) ^ seed, iy + dy, iz + dz);
  };
  const auto edge = [&](uint32_t dy, uint32_t dz) { return corner(0, dy, dz) * (1 - u) + corner(1, dy, dz) * u; };
  const auto face = [&](uint32_t dz) { return edge(0, dz) * (1 - v) + edge(1, dz) * v; };
  return 2 * (face(0) * (1 - w) + face(1) * w) - 1;
}

float fractal_noise(Vec3 p, int octaves, uint32_t seed) {
  float sum = 0, share = 0.5f;
  for (int i = 0; i < octaves; ++i) {
    sum += share * noise(p, seed + static_cast<uint32_t>(i));
    p = p * 2.03f;
    share *= 0.5f;
  }
  return sum;
}

}  // namespace depthstill::synth
