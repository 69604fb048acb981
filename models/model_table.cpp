#include "models/model_table.h"

#include <functional>
#include <utility>

namespace depthstill {
namespace {

UnetConfig resnet_unet(int depth, std::vector<int64_t> widths) {
  return {{EncoderKind::kResNet, depth}, std::move(widths), 1};
}

// Depth Anything 3, monocular: L as its authors have it, S and B with the sky branch and the norms of LightlyTrain's
// small students. The two kinds of a size are one network, which the head tells apart.
DepthAnythingConfig da3(DepthAnythingConfig size, SkyBranch sky, float last_norm_eps = 1e-6f) {
  size.encoder.last_norm_eps = last_norm_eps;
  size.head.sky = sky;
  return size;
}
constexpr DepthAnythingConfig kVitS{{384, 12, 6, {2, 5, 8, 11}}, {384, 64, {48, 96, 192, 384}}};
constexpr DepthAnythingConfig kVitB{{768, 12, 12, {2, 5, 8, 11}}, {768, 128, {96, 192, 384, 768}}};
constexpr DepthAnythingConfig kVitL{{1024, 24, 16, {4, 11, 17, 23}}, {1024, 256, {256, 512, 1024, 1024}}};
constexpr ModelCounts kCountsS{24'720'514, 24'720'130, 53'238'786'048};
constexpr ModelCounts kCountsB{97'194'114, 97'193'346, 174'361'792'512};
constexpr ModelCounts kCountsL{334'172'418, 334'171'394, 592'104'267'776};

const std::vector<ModelRow>& table() {
  static const std::vector<ModelRow> rows = {
      {"mobilenet_unet",
       Head::kDpm,
       {17'647'618, 17'646'465, 171'097'608'704},
       UnetConfig{{EncoderKind::kMobileNetV2}, {128, 256, 512, 2048}, 2}},
      {"resnet18_unet",
       Head::kDpm,
       {16'783'938, 16'487'617, 129'078'231'040},
       resnet_unet(18, {128, 128, 256, 256, 512})},
      {"resnet50_unet",
       Head::kDpm,
       {78'394'178, 78'097'857, 244'029'423'616},
       resnet_unet(50, {128, 256, 512, 1024, 2048})},
      {"mobilenet_unet_small",
       Head::kDpm,
       {2'629'137, 2'629'137, 5'701'783'296},
       UnetConfig{{EncoderKind::kMobileNetV2, 0, false}, {16, 32, 64, 128, 256}, 1, false}},
      {"dpt_s", Head::kRelative, {24'785'089, 24'710'849, 50'947'057'664}, kVitS},
      {"dpt_b", Head::kRelative, {97'470'785, 97'174'849, 169'786'265'600}, kVitB},
      {"dpt_l", Head::kRelative, {335'315'649, 334'134'465, 582'961'143'808}, kVitL},
      {"dpt_g",
       Head::kRelative,
       {1'258'132'225, 1'255'475'713, 2'039'819'382'784},
       DepthAnythingConfig{{1536, 40, 24, {9, 19, 29, 39}, true}, {1536, 384, {1536, 1536, 1536, 1536}}}},
      {"midas_small", Head::kRelative, {21'320'545, 16'600'929, 17'375'479'968}, MidasSmallConfig{}},
      {"da3mono_s", Head::kRelativeDepth, kCountsS, da3(kVitS, SkyBranch::kSigmoid)},
      {"da3mono_b", Head::kRelativeDepth, kCountsB, da3(kVitB, SkyBranch::kSigmoid)},
      {"da3mono_l", Head::kRelativeDepth, kCountsL, da3(kVitL, SkyBranch::kRelu, 1e-5f)},
      {"da3metric_s", Head::kCanonicalDepth, kCountsS, da3(kVitS, SkyBranch::kSigmoid)},
      {"da3metric_b", Head::kCanonicalDepth, kCountsB, da3(kVitB, SkyBranch::kSigmoid)},
      {"da3metric_l", Head::kCanonicalDepth, kCountsL, da3(kVitL, SkyBranch::kRelu, 1e-5f)},
  };
  return rows;
}

}  // namespace

std::span<const ModelRow> model_table() { return table(); }

std::vector<std::string> model_names() {
  std::vector<std::string> names;
  for (const ModelRow& row : table()) names.emplace_back(row.name);
  return names;
}

const ModelRow& find_model(std::string_view name) {
  for (const ModelRow& row : table()) {
    if (name == row.name) return row;
  }
  fail("model: expected one of ", list_text(model_names(), std::identity()), "; got \"", name, '"');
}

bool same_weights(std::string_view a, std::string_view b) {
  if (a == b) return true;
  const auto* first = std::get_if<DepthAnythingConfig>(&find_model(a).config);
  const auto* second = std::get_if<DepthAnythingConfig>(&find_model(b).config);
  return first != nullptr && second != nullptr && *first == *second;
}

InputRule input_rule(std::string_view name) {
  struct Rule {
    InputRule operator()(const UnetConfig& config) const { return UnetModel::input_rule_of(config); }
    InputRule operator()(const DepthAnythingConfig& config) const { return DepthAnything::input_rule_of(config); }
    InputRule operator()(const MidasSmallConfig&) const { return MidasSmall::kInputRule; }
  };
  return std::visit(Rule{}, find_model(name).config);
}

std::unique_ptr<DepthModel> make_model(std::string_view name, const ModelOptions& options) {
  struct Make {
    std::string_view name;
    const ModelOptions& options;
    std::unique_ptr<DepthModel> operator()(const UnetConfig& config) const {
      return std::make_unique<UnetModel>(name, config, options);
    }
    std::unique_ptr<DepthModel> operator()(const DepthAnythingConfig& config) const {
      return std::make_unique<DepthAnything>(name, config, options);
    }
    std::unique_ptr<DepthModel> operator()(const MidasSmallConfig&) const {
      return std::make_unique<MidasSmall>(name, options);
    }
  };
  const ModelRow& row = find_model(name);
  check(options.decoder_widths.empty() || std::holds_alternative<UnetConfig>(row.config), name,
        ": expected no decoder_widths, which are for U-Nets");
  check(!is_exponential(row.head) || options.head == row.head, name, ": expected the head ", name_of(row.head),
        ", got ", name_of(options.head));
  return std::visit(Make{name, options}, row.config);
}

}  // namespace depthstill
