// A furnished room seen by a standing person.
#include <numbers>

#include "tools/synth/synth_scene.h"

namespace depthstill::synth {
namespace {

constexpr float kPi = std::numbers::pi_v<float>;

class RoomBuilder {
 public:
  RoomBuilder(Philox& random, ImageSize size) : random_(random) {
    scene_.seed = random.bits();
    scene_.outdoors = false;
    half_x_ = range(1.6f, 3.2f);
    far_ = range(3.5f, 7.5f);
    height_ = range(2.4f, 3.0f);
    set_camera(size);
    scene_.light = {range(-0.5f, 0.5f) * half_x_, height_ - 0.25f, range(0.35f, 0.65f) * far_};
    scene_.light_colour = Vec3{1.0f, 0.93f, 0.82f} * range(0.6f, 1.2f);
    scene_.ambient = Vec3{0.50f, 0.49f, 0.48f} * range(0.5f, 1.0f);
  }

  Scene build() {
    add_shell();
    add_wall_things();
    // Furniture stands along the walls, each piece in a slot of its own, and in the middle.
    for (const float side : {-1.0f, 1.0f}) {
      for (float z = range(0.9f, 1.8f); z < far_ - 0.8f; z += range(1.3f, 2.2f)) {
        if (chance(0.75f)) add_furniture({side * (half_x_ - 0.35f), 0, z}, -side * 0.5f * kPi);
      }
    }
    for (float x = -half_x_ + 0.9f; x < half_x_ - 0.8f; x += range(1.2f, 2.2f)) {
      if (chance(0.8f)) add_furniture({x, 0, far_ - 0.35f}, 0);
    }
    if (chance(0.75f)) add_table({range(-0.4f, 0.4f) * half_x_, 0, range(0.45f, 0.65f) * far_}, range(-0.4f, 0.4f));
    if (chance(0.5f)) {
      scene_.add(Solid::kBox, Material::kFabric, {range(-0.5f, 0.5f), 0.008f, 0.5f * far_},
                 {range(0.7f, 1.2f), 0.008f, range(0.9f, 1.5f)}, colour(), range(-0.3f, 0.3f));
    }
    return std::move(scene_);
  }

 private:
  float range(float low, float high) {
    return static_cast<float>(random_.uniform(static_cast<double>(low), static_cast<double>(high)));
  }
  bool chance(float probability) { return range(0, 1) < probability; }
  Vec3 colour() { return {range(0.08f, 0.6f), range(0.08f, 0.5f), range(0.08f, 0.5f)}; }
  Vec3 wood() { return mix({0.40f, 0.25f, 0.13f}, {0.20f, 0.11f, 0.06f}, range(0, 1)) * range(0.7f, 1.4f); }

  void set_camera(ImageSize size) {
    Camera& camera = scene_.camera;
    camera.size = size;
    // NYU's Kinect for usual images; KITTI's camera for very wide ones.
    const bool wide = size.width > 2 * size.height;
    const auto w = static_cast<float>(size.width), h = static_cast<float>(size.height);
    camera.focal = wide ? 721.5377f * w / 1242 : 518.8579f * w / 640;
    camera.centre_x = 0.5f * w - 0.5f;
    camera.centre_y = 0.5f * h - 0.5f;
    camera.position = {range(-0.4f, 0.4f) * half_x_, range(1.2f, 1.6f), range(0.1f, 0.5f)};
    camera.axes = camera_axes(range(-0.45f, 0.45f), range(-0.28f, -0.02f), range(-0.03f, 0.03f));
  }

  void add_shell() {
    const float t = 0.1f;  // half the walls' thickness
    scene_.add(Solid::kBox, Material::kFloor, {0, -t, 0.5f * far_}, {half_x_ + 1, t, 0.5f * far_ + 2}, wood() * 1.6f);
    scene_.add(Solid::kBox, Material::kCeiling, {0, height_ + t, 0.5f * far_}, {half_x_ + 1, t, 0.5f * far_ + 2}, {});
    const Vec3 paint = mix({0.72f, 0.70f, 0.66f}, colour(), range(0, 0.6f));
    const Vec3 wall{t, 0.5f * height_, 0.5f * far_ + 2};
    scene_.add(Solid::kBox, Material::kWall, {-half_x_ - t, 0.5f * height_, 0.5f * far_}, wall, paint);
    scene_.add(Solid::kBox, Material::kWall, {half_x_ + t, 0.5f * height_, 0.5f * far_}, wall, paint);
    const Vec3 accent = chance(0.3f) ? colour() * 1.3f : paint;
    scene_.add(Solid::kBox, Material::kWall, {0, 0.5f * height_, far_ + t}, {half_x_ + 1, 0.5f * height_, t}, accent);
    scene_.add(Solid::kBox, Material::kWall, {0, 0.5f * height_, -0.6f - t}, {half_x_ + 1, 0.5f * height_, t}, paint);
    scene_.add(Solid::kEllipsoid, Material::kLamp, scene_.light + Vec3{0, 0.12f, 0}, {0.17f, 0.1f, 0.17f}, {});
  }

  // A flat thing on the wall: side -1 left, 0 far, 1 right.
  void hang(Material material, int side, float along, float y, float half_along, float half_y, Vec3 tint) {
    const float x = static_cast<float>(side) * (half_x_ - 0.02f);
    const Vec3 centre = side == 0 ? Vec3{along, y, far_ - 0.02f} : Vec3{x, y, along};
    const Vec3 half = side == 0 ? Vec3{half_along, half_y, 0.025f} : Vec3{0.025f, half_y, half_along};
    scene_.add(Solid::kBox, material, centre, half, tint);
  }

  void add_wall_things() {
    for (const int side : {-1, 0, 1}) {
      const float length = side == 0 ? 2 * half_x_ : far_, begin = side == 0 ? -half_x_ : 0;
      if (chance(0.4f))
        hang(Material::kWindow, side, begin + range(0.3f, 0.7f) * length, 1.55f, range(0.5f, 0.9f), range(0.5f, 0.7f),
             {});
      if (chance(0.35f))
        hang(Material::kWood, side, begin + range(0.15f, 0.85f) * length, 1.0f, 0.45f, 1.0f, wood() * 1.2f);
      for (int i = static_cast<int>(random_.below(3)); i > 0; --i) {
        hang(Material::kPicture, side, begin + range(0.1f, 0.9f) * length, range(1.4f, 1.8f), range(0.2f, 0.5f),
             range(0.15f, 0.4f), {});
      }
    }
  }

  // `at`: where the piece stands; turn: its front looks towards -z before turning.
  void add_part(Solid solid, Material material, Vec3 at, float turn, Vec3 offset, Vec3 half, Vec3 tint) {
    const Vec3 turned{std::cos(turn) * offset.x + std::sin(turn) * offset.z, offset.y,
                      -std::sin(turn) * offset.x + std::cos(turn) * offset.z};
    scene_.add(solid, material, at + turned, half, tint, turn);
  }

  void add_furniture(Vec3 at, float turn) {
    switch (random_.below(6)) {
      case 0:
        return add_sofa(at, turn);
      case 1: {
        const float height = range(0.8f, 1.15f);
        return add_part(Solid::kBox, Material::kBooks, at, turn, {0, height, 0.1f}, {range(0.35f, 0.6f), height, 0.2f},
                        wood());
      }
      case 2: {
        const float height = range(0.3f, 0.55f);
        add_part(Solid::kBox, Material::kDrawers, at, turn, {0, height, 0.05f}, {range(0.4f, 0.6f), height, 0.27f},
                 wood());
        return add_small_things(at + Vec3{0, 2 * height, 0});
      }
      case 3:
        return add_plant(at);
      case 4: {
        add_part(Solid::kBox, Material::kDrawers, at, turn, {0, 1.0f, 0}, {range(0.4f, 0.55f), 1.0f, 0.3f},
                 wood() * 1.3f);
        return;
      }
      default:
        return add_chair(at, turn + range(-0.5f, 0.5f));
    }
  }

  void add_sofa(Vec3 at, float turn) {
    const float half = range(0.55f, 0.75f);
    const Vec3 cloth = colour();
    add_part(Solid::kBox, Material::kFabric, at, turn, {0, 0.21f, -0.1f}, {half, 0.21f, 0.4f}, cloth);
    add_part(Solid::kBox, Material::kFabric, at, turn, {0, 0.62f, 0.22f}, {half, 0.2f, 0.1f}, cloth * 1.05f);
    for (const float side : {-1.0f, 1.0f}) {
      add_part(Solid::kBox, Material::kFabric, at, turn, {side * (half + 0.08f), 0.3f, -0.1f}, {0.08f, 0.3f, 0.4f},
               cloth * 0.95f);
    }
    add_part(Solid::kEllipsoid, Material::kFabric, at, turn, {range(-0.3f, 0.3f), 0.55f, 0.05f}, {0.2f, 0.17f, 0.1f},
             colour());
  }

  void add_legs(Vec3 at, float turn, float half_x, float half_z, float height, Vec3 tint) {
    for (const float x : {-1.0f, 1.0f}) {
      for (const float z : {-1.0f, 1.0f}) {
        add_part(Solid::kBox, Material::kWood, at, turn, {x * half_x, 0.5f * height, z * half_z},
                 {0.025f, 0.5f * height, 0.025f}, tint);
      }
    }
  }

  void add_chair(Vec3 at, float turn) {
    const Vec3 tint = wood();
    add_legs(at, turn, 0.18f, 0.18f, 0.44f, tint);
    add_part(Solid::kBox, Material::kWood, at, turn, {0, 0.455f, 0}, {0.21f, 0.02f, 0.21f}, tint);
    add_part(Solid::kBox, Material::kWood, at, turn, {0, 0.7f, 0.19f}, {0.2f, 0.23f, 0.015f}, tint);
  }

  void add_table(Vec3 at, float turn) {
    const Vec3 tint = wood();
    const float half_x = range(0.4f, 0.8f), half_z = range(0.3f, 0.5f), height = chance(0.4f) ? 0.42f : 0.74f;
    add_legs(at, turn, half_x - 0.05f, half_z - 0.05f, height, tint);
    add_part(Solid::kBox, Material::kWood, at, turn, {0, height + 0.02f, 0}, {half_x, 0.02f, half_z}, tint);
    add_small_things(at + Vec3{0, height + 0.04f, 0});
    if (height > 0.5f) {
      add_chair(at + Vec3{-half_x - 0.3f, 0, 0}, turn - 0.5f * kPi + range(-0.4f, 0.4f));
      add_chair(at + Vec3{half_x * 0.2f, 0, half_z + 0.35f}, turn + range(-0.4f, 0.4f));
    }
  }

  void add_small_things(Vec3 at) {
    for (int i = 1 + static_cast<int>(random_.below(4)); i > 0; --i) {
      const Vec3 place = at + Vec3{range(-0.25f, 0.25f), 0, range(-0.15f, 0.15f)};
      const float h = range(0.03f, 0.16f), r = range(0.03f, 0.1f);
      switch (random_.below(3)) {
        case 0:
          scene_.add(Solid::kCylinder, Material::kPlain, place + Vec3{0, h, 0}, {r * 0.6f, h, r * 0.6f}, colour());
          break;
        case 1:
          scene_.add(Solid::kBox, Material::kPlain, place + Vec3{0, h * 0.5f, 0}, {r, h * 0.5f, r * 1.3f}, colour(),
                     range(-1, 1));
          break;
        default:
          scene_.add(Solid::kEllipsoid, Material::kPlain, place + Vec3{0, r, 0}, {r, r, r}, colour());
      }
    }
  }

  void add_plant(Vec3 at) {
    scene_.add(Solid::kCylinder, Material::kPlain, at + Vec3{0, 0.18f, 0}, {0.16f, 0.18f, 0.16f}, colour());
    for (int i = 0; i < 3; ++i) {
      scene_.add(Solid::kEllipsoid, Material::kLeaves,
                 at + Vec3{range(-0.12f, 0.12f), range(0.55f, 0.95f), range(-0.12f, 0.12f)}, {0.26f, 0.32f, 0.26f},
                 Vec3{0.06f, 0.20f, 0.05f} * range(0.8f, 1.3f));
    }
  }

  Philox& random_;
  Scene scene_;
  float half_x_ = 2, far_ = 5, height_ = 2.6f;
};

}  // namespace

Scene make_room(Philox& random, ImageSize size) { return RoomBuilder(random, size).build(); }

}  // namespace depthstill::synth
