#include "tools/bench/bench_kernels.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <memory>
#include <string_view>
#include <utility>

#include "engine/data/batch_tensors.h"
#include "engine/ops.h"
#include "engine/ops_loss.h"
#include "engine/optim.h"
#include "engine/random_data.h"
#include "tools/bench/op_table.h"
#include "tools/interrupt.h"

namespace depthstill {
namespace {

using Dims = std::vector<int64_t>;
using Call = std::function<void()>;

struct Place {
  Device device;
  DType dtype;
  Tensor values(const Shape& shape) const { return random_values(shape, dtype, device); }
  Tensor parameter(const Shape& shape) const { return random_values(shape, DType::kFloat, device); }
};

struct Kernel {
  const char* name;
  const char* dims;  // names of a shape's numbers
  // Shapes of the students. A first number of 0 stands for --batch, and -n for n rows of each of its images: with the
  // rows of one image, launches would be timed and not memory.
  std::vector<Dims> shapes;
  // A call that runs all passes, inside ranges named after them; empty where the device cannot.
  Call (*prepare)(const Dims& d, const Place& place);
  const char* op = name;  // name of the op that is timed
};

Tensor leaf(const Tensor& x) { return x.detach().set_requires_grad(); }

// Sends a copy of dy back into y, since gradient functions may work in place.
void send_back(const std::vector<Tensor>& ys, const std::vector<Tensor>& dys) {
  const auto seeded =
      record("seed", ys, std::vector<Tensor>{zeros({1}, DType::kFloat, ys[0].device())}, [&](const Gradients&) {
        Gradients gradients;
        for (const Tensor& dy : dys) gradients.push_back(clone(dy));
        return gradients;
      });
  backward(seeded[0]);
}

// Runs y = f(), then its gradient; `pass` names the gradient.
template <class F>
void run_passes(const char* pass, const Tensor& dy, F f) {
  const ProfileRange range("fwd", pass);
  const Tensor y = f();
  send_back({y}, {dy});
}

// Prepares an op of one input: f(x).
template <class F>
Call unary(const Tensor& x, F f) {
  Tensor dy;
  {
    const NoGrad no_grad;
    dy = random_values(f(x).shape(), x.dtype(), x.device());
  }
  return [=] { run_passes("backward", dy, [&] { return f(leaf(x)); }); };
}

Call prepare_conv2d(const Dims& d, const Place& place) {
  const int64_t N = d[0], H = d[1], W = d[2], C = d[3], O = d[4], R = d[5];
  const int pad = static_cast<int>(R / 2);
  const Tensor x = place.values({N, H, W, C}), weight = place.parameter({O, R, R, C}), bias = place.parameter({O});
  const Tensor dy = place.values({N, H, W, O});
  const Conv2dOptions options{1, 1, pad, pad, pad, pad, Activation::kNone};
  return [=] {
    run_passes("dx", dy, [&] { return conv2d(leaf(x), weight, bias, options); });
    run_passes("dweight", dy, [&] { return conv2d(x, leaf(weight), leaf(bias), options); });
  };
}

Call prepare_depthwise_conv2d(const Dims& d, const Place& place) {
  const Tensor x = place.values({d[0], d[1], d[2], d[3]}), weight = place.parameter({3, 3, d[3]});
  const int stride = static_cast<int>(d[4]), dilation = static_cast<int>(d[5]);
  const Tensor dy = place.values({d[0], (d[1] - 1) / stride + 1, (d[2] - 1) / stride + 1, d[3]});
  return [=] { run_passes("backward", dy, [&] { return depthwise_conv2d(leaf(x), leaf(weight), stride, dilation); }); };
}

// A 1 x 1 convolution with the batch norm before it inside, and the moments of its output.
Call prepare_norm_conv2d(const Dims& d, const Place& place) {
  const Tensor x = place.values({d[0], d[1], d[2], d[3]}), filter = place.parameter({d[4], 1, 1, d[3]});
  const Tensor a = place.parameter({d[3]}), b = place.parameter({d[3]}), guess = place.parameter({d[4]});
  const Tensor dy = place.values({d[0], d[1], d[2], d[4]});
  return [=] {
    run_passes("backward", dy, [&] {
      return batch_norm_conv2d(leaf(x), {a, b}, b, a, Activation::kRelu6, leaf(filter), {}, guess).y;
    });
  };
}

// The same for a depthwise one.
Call prepare_norm_depthwise(const Dims& d, const Place& place) {
  const Tensor x = place.values({d[0], d[1], d[2], d[3]}), filter = place.parameter({3, 3, d[3]});
  const Tensor a = place.parameter({d[3]}), b = place.parameter({d[3]});
  const int stride = static_cast<int>(d[4]), dilation = static_cast<int>(d[5]);
  const Tensor dy = place.values({d[0], (d[1] - 1) / stride + 1, (d[2] - 1) / stride + 1, d[3]});
  return [=] {
    run_passes("backward", dy, [&] {
      return batch_norm_depthwise_conv2d(leaf(x), {a, b}, b, a, Activation::kRelu6, leaf(filter),
                                         {stride, dilation, dilation, dilation}, true)
          .y;
    });
  };
}

Call prepare_linear(const Dims& d, const Place& place) {
  const Tensor x = place.values({d[0], d[1]}), weight = place.parameter({d[2], d[1]}), bias = place.parameter({d[2]});
  const Tensor dy = place.values({d[0], d[2]});
  return [=] {
    run_passes("dx", dy, [&] { return linear(leaf(x), weight, bias); });
    run_passes("dweight", dy, [&] { return linear(x, leaf(weight), leaf(bias)); });
  };
}

Call prepare_batch_norm(const Dims& d, const Place& place) {
  const Tensor x = place.values({d[0], d[1], d[2], d[3]}), weight = place.parameter({d[3]}), bias = clone(weight);
  const Tensor mean = zeros_like(weight), var = zeros_like(weight), dy = clone(x);
  return [=] {
    run_passes("backward", dy, [&] {
      return batch_norm(leaf(x), leaf(weight), leaf(bias), mean, var,
                        {.training = true, .activation = Activation::kRelu6});
    });
  };
}

Call prepare_layer_norm(const Dims& d, const Place& place) {
  const Tensor x = place.values({d[0], d[1]}), weight = place.parameter({d[1]}), bias = clone(weight), dy = clone(x);
  return [=] { run_passes("backward", dy, [&] { return layer_norm(leaf(x), leaf(weight), leaf(bias), 1e-6f); }); };
}

Call prepare_layer_scale(const Dims& d, const Place& place) {
  const Tensor x = place.values({d[0], d[1]}), gamma = place.parameter({d[1]}), dy = clone(x);
  return [=] { run_passes("backward", dy, [&] { return layer_scale(leaf(x), leaf(dy), leaf(gamma)); }); };
}

Call prepare_head_conv(const Dims& d, const Place& place) {
  const Tensor x = place.values({d[0], d[1], d[2], d[3]}), weight = place.parameter({1, 1, 1, d[3]});
  const Tensor bias = place.parameter({1}), dy = place.parameter({d[0], d[1], d[2], 1});
  return [=] {
    run_passes("backward", dy, [&] { return head_conv(leaf(x), leaf(weight), leaf(bias), Activation::kRelu); });
  };
}

Call prepare_upsample_concat(const Dims& d, const Place& place) {
  const int64_t by = d[5];
  const Tensor x = place.values({d[0], d[1], d[2], d[3]}), tap = place.values({d[0], by * d[1], by * d[2], d[4]});
  const Tensor dy = place.values({d[0], by * d[1], by * d[2], d[3] + d[4]});
  return [=] {
    run_passes("backward", dy, [&] { return upsample_concat(leaf(x), {0, x.size(1)}, leaf(tap), 0, true); });
  };
}

Call prepare_softmax(const Dims& d, const Place& place) { return unary(place.values({d[0], d[1]}), softmax); }

Call prepare_gelu(const Dims& d, const Place& place) {
  return unary(place.values({d[0], d[1]}), [](const Tensor& x) { return gelu(x, GeluKind::kErf); });
}

Call prepare_attention(const Dims& d, const Place& place) {
  return unary(place.values({d[0], d[1], 3 * d[2]}),
               [heads = d[3]](const Tensor& qkv) { return attention(qkv, heads); });
}

Call prepare_upsample_bilinear(const Dims& d, const Place& place) {
  return unary(place.values({d[0], d[1], d[2], d[3]}),
               [h = 2 * d[1], w = 2 * d[2]](const Tensor& x) { return upsample_bilinear(x, h, w, true); });
}

// The logits become their gradient, so that each call needs new ones. What comes back is not 0: the kernels know a
// shorter way for pixels without a gradient.
Call prepare_dpm(const Dims& d, const Place& place) {
  const Tensor logits = place.values({d[0], d[1], d[2], d[3]});
  const DpmBins bins{static_cast<int>(d[3] == 264 ? 257 : d[3])};
  const Tensor teacher = random_teacher({d[0], d[1], d[2]}, bins.d_max, place.device);
  const Tensor dkl = place.parameter({1}), ddepth = place.parameter(teacher.shape());
  return [=] {
    const ProfileRange range("fwd", "backward");
    const DpmOutput output = dpm_loss(leaf(clone(logits)), teacher, bins);
    send_back({output.kl, output.depth}, {dkl, ddepth});
  };
}

// The call is empty where the device has no kernel for it.
Call prepare_dpm_head(const Dims& d, const Place& place) {
  const DpmBins bins{};
  const Tensor x = place.values({d[0], d[1], d[2], d[3]});
  if (!dpm_head_supported(place.device, place.dtype, d[3], bins)) return {};
  // The logits are as wide as those of bench dpm.
  const Tensor weight = scale(place.parameter({bins.bins, 1, 1, d[3]}), 1.0f / std::sqrt(static_cast<float>(d[3])));
  const Tensor bias = place.parameter({bins.bins});
  const Tensor teacher = random_teacher({d[0], d[1], d[2]}, bins.d_max, place.device);
  const Tensor dkl = place.parameter({1}), ddepth = place.parameter(teacher.shape());
  return [=] {
    const ProfileRange range("fwd", "backward");
    const DpmOutput output = dpm_head_loss(leaf(x), leaf(weight), leaf(bias), teacher, bins);
    send_back({output.kl, output.depth}, {dkl, ddepth});
  };
}

Call prepare_ssim(const Dims& d, const Place& place) {
  const Tensor target = random_teacher({d[0], d[1], d[2]}, 80.0f, place.device);
  const Tensor pred = scale(target, 1.1f), dy = place.parameter({1});
  return [=] { run_passes("backward", dy, [&] { return ssim_loss(leaf(pred), target); }); };
}

// Maps without a unit: those of a teacher, and a student's that follow them roughly.
struct RelativeMaps {
  Tensor x, y;
  RelativeMaps(const Dims& d, const Place& place) : y(random_teacher({d[0], d[1], d[2]}, 10.0f, place.device)) {
    x = add(scale(y, 2.0f), place.parameter(y.shape()));
  }
};

Call prepare_context_statistics(const Dims& d, const Place& place) {
  return [maps = RelativeMaps(d, place)] { static_cast<void>(context_statistics(maps.x, maps.y)); };
}

Call prepare_context_loss(const Dims& d, const Place& place) {
  const RelativeMaps maps(d, place);
  const Tensor dy = place.parameter({1});
  const Contexts contexts = context_statistics(maps.x, maps.y);
  return [=] { run_passes("backward", dy, [&] { return context_loss(leaf(maps.x), maps.y, contexts); }); };
}

Call prepare_gradient_matching(const Dims& d, const Place& place) {
  const RelativeMaps maps(d, place);
  const Tensor dy = place.parameter({1});
  const Contexts contexts = context_statistics(maps.x, maps.y);
  return [=] { run_passes("backward", dy, [&] { return gradient_matching(leaf(maps.x), maps.y, contexts); }); };
}

Call prepare_adamw(const Dims& d, const Place& place) {
  const Tensor x = leaf(place.parameter({d[0]})), dy = place.parameter({d[0]});
  send_back({x}, {dy});
  const auto optimiser = std::make_shared<AdamW>(std::vector<Tensor>{x}, AdamWOptions{});
  return [=] { optimiser->step(); };
}

// An image and its teacher map with every augmentation; on CUDA the copy to the device is not part of it.
Call prepare_preprocess(const Dims& d, const Place& place) {
  const auto height = static_cast<int>(d[0]), width = static_cast<int>(d[1]);
  const auto sample = std::make_shared<Sample>();
  sample->image = Image8{width, height, std::vector<uint8_t>(static_cast<size_t>(3 * d[0] * d[1]), 100)};
  sample->teacher = DepthMap{width, height, std::vector<float>(static_cast<size_t>(d[0] * d[1]), 10.0f)};
  AugmentParams params;
  params.crop = {width, height};
  PreprocessParams& image = params.image;
  image.flip = image.colour = true;
  image.angle_degrees = 1.5f;
  image.gamma = image.brightness = 1.1f;
  params.teacher = image;
  Batch batch;
  batch.items.push_back({sample, {{params}}});
  return [=] { to_tensors(batch, place.dtype, place.device); };
}

const std::vector<Kernel>& kernels() {
  static const std::vector<Kernel> list = {
      {"dpm",
       "NxHxWxCHANNELS; 264 channels are 257 bins",
       {{0, 352, 704, 257}, {0, 352, 704, 264}},
       prepare_dpm,
       "dpm_loss"},
      {"dpm_head", "NxHxWxC", {{0, 352, 704, 128}}, prepare_dpm_head, "dpm_head_loss"},
      {"ssim", "NxHxW", {{0, 352, 704}}, prepare_ssim, "ssim_loss"},
      {"conv2d",
       "NxHxWxCxOxR",
       {{0, 44, 88, 2144, 512, 3},
        {0, 88, 176, 280, 128, 3},
        {0, 352, 704, 128, 128, 3},
        {0, 352, 704, 128, 257, 1},
        {0, 352, 704, 128, 264, 1}},
       prepare_conv2d},
      {"norm_conv2d",
       "NxHxWxCxO",
       {{0, 176, 352, 32, 16}, {0, 88, 176, 144, 24}, {0, 44, 88, 960, 160}},
       prepare_norm_conv2d,
       "conv2d"},
      {"depthwise_conv2d",
       "NxHxWxCxSTRIDExDILATION",
       {{0, 176, 352, 32, 1, 1}, {0, 176, 352, 96, 2, 1}, {0, 88, 176, 144, 1, 1}, {0, 44, 88, 960, 1, 4}},
       prepare_depthwise_conv2d},
      {"norm_depthwise",
       "NxHxWxCxSTRIDExDILATION",
       {{0, 176, 352, 32, 1, 1}, {0, 176, 352, 96, 2, 1}, {0, 88, 176, 144, 1, 1}, {0, 44, 88, 960, 1, 4}},
       prepare_norm_depthwise,
       "depthwise_conv2d"},
      {"batch_norm", "NxHxWxC", {{0, 176, 352, 96}, {0, 88, 176, 24}, {0, 44, 88, 960}}, prepare_batch_norm},
      {"upsample_bilinear", "NxHxWxC, to twice the size", {{0, 176, 352, 128}}, prepare_upsample_bilinear},
      {"upsample_concat",
       "NxHxWxCxTAPxFACTOR; the tap is larger by the factor",
       {{0, 44, 88, 2048, 96, 1}, {0, 44, 88, 256, 24, 2}},
       prepare_upsample_concat},
      {"context_statistics", "NxHxW", {{0, 560, 560}}, prepare_context_statistics},
      {"context_loss", "NxHxW", {{0, 560, 560}}, prepare_context_loss},
      {"gradient_matching", "NxHxW", {{0, 560, 560}}, prepare_gradient_matching},
      {"preprocess", "HxW", {{352, 704}}, prepare_preprocess},
      {"adamw", "ELEMENTS", {{17646465}}, prepare_adamw},
      {"linear", "ROWSxIxO", {{-1370, 384, 1152}, {-1370, 384, 1536}, {-1370, 1536, 384}}, prepare_linear},
      {"attention", "NxTxCxHEADS", {{0, 1370, 384, 6}}, prepare_attention},
      {"layer_norm", "ROWSxC", {{-1370, 384}}, prepare_layer_norm},
      {"layer_scale", "ROWSxC", {{-1370, 384}}, prepare_layer_scale},
      {"head_conv", "NxHxWxC", {{0, 518, 518, 32}}, prepare_head_conv},
      {"gelu", "ROWSxC", {{-1370, 1536}}, prepare_gelu},
      {"softmax", "ROWSxCOLUMNS", {{-8192, 257}}, prepare_softmax},
  };
  return list;
}

const Kernel& find(const std::string& name) {
  for (const Kernel& kernel : kernels()) {
    if (name == kernel.name) return kernel;
  }
  fail("bench: unknown kernel '", name, "'");
}

Dims parse_shape(const std::string& text, const Kernel& kernel) {
  Dims dims;
  const char *at = text.data(), *const end = at + text.size();
  bool ok = true;
  while (ok) {
    int64_t value = 0;
    const auto [next, error] = std::from_chars(at, end, value);
    ok = error == std::errc() && value > 0 && (next == end || *next == 'x');
    dims.push_back(value);
    if (next == end) break;
    at = next + 1;
  }
  check(ok && dims.size() == kernel.shapes[0].size(), "--shape: expected ", kernel.dims, " for ", kernel.name,
        ", got '", text, "'");
  return dims;
}

std::string text_of(const Dims& dims) {
  std::string text;
  for (const int64_t d : dims) text += (text.empty() ? "" : "x") + std::to_string(d);
  return text;
}

// "fwd/dx" is the forward pass before dx, "bwd/dx" dx itself.
std::string pass_of(std::string_view range) {
  if (range.starts_with("bwd/")) return std::string(range.substr(4));
  return range.starts_with("fwd/") ? "forward" : std::string(range.substr(0, range.find('/')));
}

struct Pass {
  std::string name;
  std::string_view range;
  double ms = 0;
  Work work;
};

// Adds up what one call did, pass by pass. The forward pass is repeated before each gradient that is taken alone: the
// first one counts.
std::vector<Pass> passes_of(const std::vector<OpSample>& samples, std::string_view op) {
  std::vector<Pass> passes;
  for (const OpSample& sample : samples) {
    if (sample.op != op) continue;
    const std::string name = pass_of(sample.range);
    auto pass = std::find_if(passes.begin(), passes.end(), [&](const Pass& p) { return p.name == name; });
    if (pass == passes.end()) pass = passes.insert(passes.end(), {name, sample.range, 0.0, {}});
    if (pass->range != sample.range) continue;
    pass->ms += sample.ms;
    pass->work.flops += sample.work.flops;
    pass->work.bytes += sample.work.bytes;
  }
  return passes;
}

std::vector<KernelTime> time_shape(const Kernel& kernel, const Dims& dims, const KernelBenchOptions& options) {
  const Call call = kernel.prepare(dims, {options.device, options.dtype});
  if (!call) return {};
  Profiler profiler(options.device);
  std::vector<Pass> passes;
  std::vector<std::vector<double>> ms;
  for (int i = -options.warmup; i < options.steps; ++i) {
    throw_if_interrupted();
    call();
    passes = passes_of(profiler.take(), kernel.op);
    if (i < 0) continue;
    ms.resize(passes.size());
    for (size_t k = 0; k < passes.size(); ++k) ms[k].push_back(passes[k].ms);
  }
  std::vector<KernelTime> times;
  for (size_t k = 0; k < passes.size(); ++k) {
    times.push_back({kernel.name, passes[k].name, text_of(dims), median_of(ms[k]),
                     *std::min_element(ms[k].begin(), ms[k].end()), passes[k].work});
  }
  return times;
}

}  // namespace

std::vector<std::string> bench_kernel_names() {
  std::vector<std::string> names;
  for (const Kernel& kernel : kernels()) names.emplace_back(kernel.name);
  return names;
}

std::string shape_help() {
  std::string text;
  for (const Kernel& kernel : kernels()) text += concat_text("  ", kernel.name, ": ", kernel.dims, "\n");
  return text;
}

std::vector<KernelTime> bench_kernel(const std::string& name, const KernelBenchOptions& options) {
  const Kernel& kernel = find(name);
  std::vector<Dims> shapes = kernel.shapes;
  if (!options.shape.empty()) shapes = {parse_shape(options.shape, kernel)};
  std::vector<KernelTime> times;
  for (Dims& dims : shapes) {
    if (dims[0] <= 0) dims[0] = options.batch * std::max<int64_t>(1, -dims[0]);
    for (KernelTime& time : time_shape(kernel, dims, options)) times.push_back(std::move(time));
  }
  return times;
}

}  // namespace depthstill
