// A street seen from a car: road, pavements, houses, parked and moving cars, trees, poles, signs, people.
#include <numbers>

#include "tools/synth/synth_scene.h"

namespace depthstill::synth {
namespace {

constexpr float kPi = std::numbers::pi_v<float>;

class StreetBuilder {
 public:
  StreetBuilder(Philox& random, ImageSize size) : random_(random) {
    scene_.seed = random.bits();
    set_camera(size);
    set_light();
  }

  Scene build() {
    const int lanes = 2 + static_cast<int>(random_.below(3));
    scene_.lane_width = range(2.9f, 3.6f);
    scene_.road_half_width = 0.5f * scene_.lane_width * static_cast<float>(lanes);
    pavement_ = range(1.5f, 4.0f);
    if (chance(0.35f)) scene_.crossing_z = range(18, 60);
    // The camera drives in the rightmost lane but one of its side.
    scene_.camera.position.x =
        chance(0.5f) ? 0.5f * scene_.lane_width : scene_.road_half_width - 0.5f * scene_.lane_width;
    scene_.camera.position.x += range(-0.4f, 0.4f);

    scene_.add(Solid::kBox, Material::kGround, {0, -1, 150}, {400, 1, 450}, {});
    for (const float side : {-1.0f, 1.0f}) {
      add_pavement(side);
      add_houses(side);
      add_roadside(side);
      add_parked_cars(side);
    }
    add_traffic(lanes);
    add_horizon();
    return std::move(scene_);
  }

 private:
  float range(float low, float high) {
    return static_cast<float>(random_.uniform(static_cast<double>(low), static_cast<double>(high)));
  }
  bool chance(float probability) { return range(0, 1) < probability; }
  float edge() const { return scene_.road_half_width + pavement_; }
  bool on_crossing(float z, float margin) const {
    return std::abs(z - scene_.crossing_z) < scene_.road_half_width + margin;
  }

  void set_camera(ImageSize size) {
    Camera& camera = scene_.camera;
    camera.size = size;
    // KITTI's camera 2, scaled with the image.
    const float scale = static_cast<float>(size.width) / 1242.0f;
    camera.focal = 721.5377f * scale;
    camera.centre_x = 609.5593f * scale;
    camera.centre_y = 172.854f / 375.0f * static_cast<float>(size.height);
    camera.position = {0, 1.65f + range(-0.05f, 0.05f), 0};
    camera.axes = camera_axes(range(-0.14f, 0.14f), range(-0.03f, 0.015f), range(-0.012f, 0.012f));
  }

  void set_light() {
    const float azimuth = range(-kPi, kPi), height = range(0.35f, 1.1f), cloudy = range(0, 1);
    scene_.light = {std::sin(azimuth) * std::cos(height), std::sin(height), std::cos(azimuth) * std::cos(height)};
    scene_.clouds = cloudy * 0.9f;
    const float sun = cloudy > 0.75f ? 0.15f : 1.15f - 0.4f * cloudy;
    scene_.light_colour = Vec3{1.0f, 0.94f, 0.84f} * sun;
    scene_.ambient = Vec3{0.40f, 0.45f, 0.52f} * (cloudy > 0.75f ? 1.5f : 0.8f + 0.3f * cloudy);
    scene_.haze = mix({0.70f, 0.79f, 0.90f}, {0.80f, 0.81f, 0.82f}, cloudy);
    scene_.haze_distance = range(150, 600);
  }

  Vec3 paint() {
    constexpr Vec3 kPaints[] = {{0.55f, 0.55f, 0.56f}, {0.03f, 0.03f, 0.035f}, {0.75f, 0.75f, 0.73f},
                                {0.28f, 0.29f, 0.31f}, {0.40f, 0.03f, 0.03f},  {0.04f, 0.08f, 0.25f},
                                {0.08f, 0.20f, 0.10f}, {0.45f, 0.38f, 0.25f}};
    return kPaints[random_.below(8)] * range(0.85f, 1.15f);
  }
  Vec3 plaster() {
    const Vec3 warm{0.62f, 0.52f, 0.38f}, cool{0.55f, 0.56f, 0.57f}, red{0.42f, 0.20f, 0.14f},
        pale{0.72f, 0.70f, 0.64f};
    const Vec3 choices[] = {warm, cool, red, pale};
    return choices[random_.below(4)] * range(0.75f, 1.1f);
  }
  Vec3 foliage() { return mix({0.06f, 0.15f, 0.03f}, {0.22f, 0.24f, 0.05f}, range(0, 1)); }

  void add_pavement(float side) {
    const float middle = side * (scene_.road_half_width + 0.5f * pavement_);
    const auto stretch = [&](float begin, float end) {
      if (end <= begin) return;
      scene_.add(Solid::kBox, Material::kPavement, {middle, 0.06f, 0.5f * (begin + end)},
                 {0.5f * pavement_, 0.06f, 0.5f * (end - begin)}, {});
    };
    stretch(-10, scene_.crossing_z - scene_.road_half_width);
    stretch(std::max(-10.0f, scene_.crossing_z + scene_.road_half_width), 400);
  }

  void add_houses(float side) {
    if (chance(0.12f)) return;  // open country on this side
    const float setback = chance(0.5f) ? range(0, 1.0f) : range(2, 9), gap = range(0, 1) * range(0, 9);
    const float storeys = range(1.5f, 5.5f);
    for (float z = range(-12, 4); z < 170;) {
      const float depth = range(7, 22), width = range(6, 14),
                  height = std::max(2.8f, 3.1f * std::round(storeys + range(-1.2f, 1.2f)));
      const float middle = z + 0.5f * depth;
      if (!on_crossing(middle, 0.5f * depth + 1)) {
        const float x = side * (edge() + setback + range(0, 0.8f) + 0.5f * width);
        scene_.add(Solid::kBox, Material::kFacade, {x, 0.5f * height, middle},
                   {0.5f * width, 0.5f * height, 0.5f * depth}, plaster());
        if (height < 10 && chance(0.75f)) {
          const float roof = range(1.0f, 2.2f);
          scene_.add_frustum(Material::kRoof, {x, height + roof, middle},
                             {0.5f * width + 0.3f, roof, 0.5f * depth + 0.2f}, 0.98f, 0.1f, 0.1f,
                             mix({0.33f, 0.13f, 0.08f}, {0.16f, 0.15f, 0.15f}, range(0, 1)));
        }
        if (setback > 2 && chance(0.7f)) add_garden_front(side, z, depth);
      }
      z += depth + (chance(0.5f) ? gap : 0);
    }
  }

  void add_garden_front(float side, float z, float depth) {
    const bool hedge = chance(0.5f);
    const float height = hedge ? range(0.4f, 0.9f) : range(0.3f, 0.6f), x = side * (edge() + 0.3f);
    scene_.add(Solid::kBox, hedge ? Material::kHedge : Material::kPlain, {x, height, z + 0.5f * depth},
               {hedge ? 0.4f : 0.12f, height, 0.48f * depth}, hedge ? foliage() : plaster() * 0.8f);
  }

  void add_roadside(float side) {
    const float poles = range(18, 40), trees = range(7, 25), x = side * (scene_.road_half_width + 0.6f);
    const bool has_trees = chance(0.7f);
    for (float z = range(2, 20); z < 150; z += poles * range(0.8f, 1.2f)) {
      if (!on_crossing(z, 1)) add_lamp_post(side, x, z);
    }
    for (float z = range(4, 15); has_trees && z < 150; z += trees * range(0.6f, 1.5f)) {
      if (!on_crossing(z, 1)) add_tree(side * (edge() - 0.5f + range(-0.3f, chance(0.3f) ? 5.0f : 0.3f)), z);
    }
    for (float z = range(6, 30); z < 90; z += range(12, 45)) add_sign(x, z);
    for (int i = static_cast<int>(random_.below(5)); i > 0; --i) {
      add_person(side * range(scene_.road_half_width + 0.3f, edge() - 0.2f), range(6, 45));
    }
  }

  void add_lamp_post(float side, float x, float z) {
    const float height = range(2.5f, 4.5f);
    const Vec3 colour{0.22f, 0.24f, 0.24f};
    scene_.add(Solid::kCylinder, Material::kMetal, {x, height, z}, {range(0.06f, 0.12f), height, 0.1f}, colour);
    scene_.add(Solid::kBox, Material::kMetal, {x - side * 0.7f, 2 * height, z}, {0.8f, 0.04f, 0.05f}, colour);
    scene_.add(Solid::kBox, Material::kLamp, {x - side * 1.4f, 2 * height - 0.06f, z}, {0.25f, 0.05f, 0.1f}, colour);
  }

  void add_sign(float x, float z) {
    constexpr Vec3 kColours[] = {{0.6f, 0.03f, 0.03f}, {0.03f, 0.1f, 0.5f}, {0.65f, 0.5f, 0.02f}};
    scene_.add(Solid::kCylinder, Material::kMetal, {x, 1.2f, z}, {0.035f, 1.2f, 0.035f}, {0.4f, 0.4f, 0.4f});
    scene_.add(Solid::kBox, Material::kSign, {x, 2.3f, z - 0.06f}, {0.33f, 0.33f, 0.02f}, kColours[random_.below(3)],
               range(-0.15f, 0.15f));
  }

  void add_tree(float x, float z) {
    const float trunk = range(0.8f, 1.6f), crown = range(1.2f, 2.6f);
    const Vec3 leaves = foliage();
    scene_.add(Solid::kCylinder, Material::kBark, {x, trunk + 0.5f, z}, {range(0.1f, 0.25f), trunk + 0.5f, 0.2f},
               {0.13f, 0.10f, 0.07f});
    for (int i = 0; i < 4; ++i) {
      const float r = crown * range(0.55f, 0.9f);
      scene_.add(
          Solid::kEllipsoid, Material::kLeaves,
          {x + crown * range(-0.5f, 0.5f), 2 * trunk + crown * range(0.4f, 1.3f), z + crown * range(-0.5f, 0.5f)},
          {r, r * range(0.75f, 1.1f), r}, leaves * range(0.8f, 1.25f));
    }
  }

  void add_person(float x, float z) {
    const Vec3 clothes{range(0.05f, 0.6f), range(0.05f, 0.5f), range(0.05f, 0.6f)};
    scene_.add(Solid::kCylinder, Material::kFabric, {x - 0.1f, 0.45f, z + range(-0.2f, 0.2f)}, {0.09f, 0.45f, 0.09f},
               clothes * 0.4f);
    scene_.add(Solid::kCylinder, Material::kFabric, {x + 0.1f, 0.45f, z + range(-0.2f, 0.2f)}, {0.09f, 0.45f, 0.09f},
               clothes * 0.4f);
    scene_.add(Solid::kEllipsoid, Material::kFabric, {x, 1.18f, z}, {0.26f, 0.4f, 0.18f}, clothes);
    scene_.add(Solid::kEllipsoid, Material::kPlain, {x, 1.66f, z}, {0.11f, 0.14f, 0.12f}, {0.5f, 0.34f, 0.26f});
  }

  void add_car(float x, float z, float turn) {
    const bool van = chance(0.15f);
    const float long_half = van ? 2.5f : range(1.9f, 2.3f), wide_half = van ? 0.98f : range(0.83f, 0.92f);
    const float body_half = van ? 0.75f : range(0.3f, 0.36f), cabin_half = van ? 0.32f : range(0.27f, 0.33f),
                clear = 0.22f;
    const Vec3 colour = paint();
    const auto place = [&](Vec3 offset) {
      return Vec3{x + std::cos(turn) * offset.x + std::sin(turn) * offset.z, offset.y,
                  z - std::sin(turn) * offset.x + std::cos(turn) * offset.z};
    };
    const float deck = clear + 2 * body_half;
    scene_.add(Solid::kBox, Material::kCarBody, place({0, clear + body_half, 0}), {wide_half, body_half, long_half},
               colour, turn);
    const float front = van ? 0.55f : 0.85f, back = van ? 0.1f : range(0.3f, 0.7f);
    scene_.add_frustum(Material::kCarCabin, place({0, deck + cabin_half, van ? -0.3f : -0.15f * long_half}),
                       {wide_half * 0.95f, cabin_half, long_half * (van ? 0.86f : 0.62f)}, 0.22f, front * 0.55f,
                       back * 0.55f, colour, turn);
    for (const float sx : {-1.0f, 1.0f}) {
      for (const float sz : {-0.62f, 0.64f}) {
        scene_.add(Solid::kEllipsoid, Material::kWheel, place({sx * (wide_half - 0.06f), 0.32f, sz * long_half}),
                   {0.13f, 0.32f, 0.32f}, {}, turn);
      }
    }
  }

  void add_parked_cars(float side) {
    if (chance(0.35f)) return;
    const float x = side * (scene_.road_half_width - 1.05f), density = range(0.3f, 0.95f);
    if (std::abs(x - scene_.camera.position.x) < 2.4f) return;
    for (float z = range(3, 9); z < 110; z += range(5.2f, 7.0f)) {
      if (chance(density) && !on_crossing(z, 3))
        add_car(x + range(-0.15f, 0.15f), z, range(-0.04f, 0.04f) + (side < 0 ? kPi : 0));
    }
  }

  void add_traffic(int lanes) {
    for (int lane = 0; lane < lanes; ++lane) {
      const float x = -scene_.road_half_width + scene_.lane_width * (static_cast<float>(lane) + 0.5f);
      const bool parked_here = lane == 0 || lane == lanes - 1, own = std::abs(x - scene_.camera.position.x) < 2;
      for (float z = range(own ? 9 : 7, 50); z < 120 && !parked_here; z += range(9, 60)) {
        if (chance(0.7f)) add_car(x + range(-0.3f, 0.3f), z, x < 0 ? kPi : 0);
      }
      if (own && parked_here && chance(0.5f)) add_car(x, range(8, 40), 0);
    }
    if (scene_.crossing_z > 0 && chance(0.6f)) add_car(range(-12, 12), scene_.crossing_z + range(-2, 2), 0.5f * kPi);
  }

  void add_horizon() {
    for (int i = 0; i < 14; ++i) {
      const float x = range(-160, 160), z = range(175, 300), height = range(4, 14);
      if (chance(0.5f)) {
        scene_.add(Solid::kBox, Material::kFacade, {x, height, z}, {range(6, 18), height, 8}, plaster());
      } else {
        scene_.add(Solid::kEllipsoid, Material::kHedge, {x, 2, z}, {range(10, 40), height * 0.8f, 12}, foliage());
      }
    }
  }

  Philox& random_;
  Scene scene_;
  float pavement_ = 2;
};

}  // namespace

Scene make_street(Philox& random, ImageSize size) { return StreetBuilder(random, size).build(); }

}  // namespace depthstill::synth
