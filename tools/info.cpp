// depthstill info: what this build and this machine can do, and the models.
#include <cstdio>
#include <dnnl.hpp>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/io/image.h"
#include "kernels/conv2d/conv2d_tiles.h"
#include "kernels/core/loop_width.h"
#include "kernels/core/parallel.h"
#include "kernels/core/runtime.h"
#include "models/model_table.h"
#include "tools/args.h"
#include "tools/progress.h"
#include "tools/version.h"

namespace depthstill {
namespace {

using nlohmann::ordered_json;

struct CpuInfo {
  std::string name = "unknown";
  bool avx512 = false, avx512_bf16 = false, amx_bf16 = false;
};

CpuInfo cpu_info() {
  CpuInfo info;
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(": ");
    if (colon == std::string::npos) continue;
    if (line.starts_with("model name")) info.name = line.substr(colon + 2);
    if (!line.starts_with("flags")) continue;
    const std::string flags = line.substr(colon + 1) + ' ';
    info.avx512 = flags.find(" avx512f ") != std::string::npos;
    info.avx512_bf16 = flags.find(" avx512_bf16 ") != std::string::npos;
    info.amx_bf16 = flags.find(" amx_bf16 ") != std::string::npos;
    break;
  }
  return info;
}

// What products in bf16 run on: the same choice as theirs.
std::string bf16_note() {
  const cpu::TileKernels* used = cpu::tile_kernels<bf16>();
  if (used == nullptr) return "emulated: correct, but slower than fp32";
  if (used == cpu::amx_kernels<bf16>()) return "matrix units (AMX)";
  if (used == cpu::avx512_bf16_kernels()) return "AVX-512 BF16 instructions";
  return concat_text("computed in fp32 (", used->name, "): correct, but not faster");
}

std::string onednn_version() {
  const dnnl_version_t* v = dnnl_version();
  return concat_text(v->major, ".", v->minor, ".", v->patch);
}

std::string version_text(int number) {
  return number == 0 ? "none" : concat_text(number / 1000, ".", number % 1000 / 10);
}

ordered_json cuda_json() {
  if (!built_with_cuda()) return {{"built", false}, {"available", false}};
  ordered_json cuda = {{"built", true},
                       {"available", available(Device::kCuda)},
                       {"runtime", version_text(cuda::runtime_version())},
                       {"driver", version_text(cuda::driver_version())}};
  if (available(Device::kCuda)) {
    const cuda::DeviceInfo device = cuda::device_info();
    cuda["device"] = device.name;
    cuda["compute_capability"] = concat_text(device.compute_major, ".", device.compute_minor);
    cuda["multiprocessors"] = device.multiprocessors;
    cuda["memory_bytes"] = device.total_bytes;
  }
  return cuda;
}

ordered_json models_json() {
  ordered_json models = ordered_json::object();
  for (const ModelRow& row : model_table()) {
    models[row.name] = {{"parameters", row.counts.parameters},
                        {"parameters_executed", row.counts.executed},
                        {"gmac", static_cast<double>(row.counts.macs) * 1e-9}};
  }
  return models;
}

ordered_json describe_all() {
  const CpuInfo cpu = cpu_info();
  ordered_json info;
  info["version"] = version();
  info["cpu"] = {{"name", cpu.name},
                 {"threads", num_threads()},
                 {"avx512", cpu.avx512},
                 {"avx512_bf16", cpu.avx512_bf16},
                 {"amx_bf16", cpu.amx_bf16},
                 {"bf16", bf16_note()},
                 {"loops", cpu::loop_width({})}};
  info["onednn"] = onednn_version();
  info["images"] = {{"png", image_decoders().png}, {"jpeg", image_decoders().jpeg}};
  ordered_json cuda = cuda_json();
  if (!available(Device::kCuda)) cuda["reason"] = cuda_unavailable_reason();
  info["cuda"] = cuda;
  info["size"] = {ModelCounts::kHeight, ModelCounts::kWidth};
  info["models"] = models_json();
  return info;
}

void print_text(const ordered_json& info) {
  const ordered_json &cpu = info["cpu"], &cuda = info["cuda"];
  std::printf("depthstill %s, oneDNN %s\n", version(), info["onednn"].get<std::string>().c_str());
  std::printf("cpu   %s, %d threads; bf16: %s; loops: %s\n", cpu["name"].get<std::string>().c_str(),
              cpu["threads"].get<int>(), cpu["bf16"].get<std::string>().c_str(),
              cpu["loops"].get<std::string>().c_str());
  std::printf("read  PNG by %s, JPEG by %s\n", info["images"]["png"].get<std::string>().c_str(),
              info["images"]["jpeg"].get<std::string>().c_str());
  if (cuda["available"].get<bool>()) {
    std::printf("cuda  %s, compute %s, %s; runtime %s, driver %s\n", cuda["device"].get<std::string>().c_str(),
                cuda["compute_capability"].get<std::string>().c_str(),
                format_bytes(cuda["memory_bytes"].get<double>()).c_str(), cuda["runtime"].get<std::string>().c_str(),
                cuda["driver"].get<std::string>().c_str());
  } else {
    std::printf("cuda  not used: %s\n", cuda["reason"].get<std::string>().c_str());
  }
  std::printf("\n%-16s %14s %14s %10s\n", "model", "parameters", "executed", "GMAC");
  for (const auto& [name, model] : info["models"].items()) {
    std::printf("%-16s %14lld %14lld %10.1f\n", name.c_str(), model["parameters"].get<long long>(),
                model["parameters_executed"].get<long long>(), model["gmac"].get<double>());
  }
  std::printf("GMAC per image of %dx%d; parameters as the published code counts them, with layers it never runs\n",
              ModelCounts::kHeight, ModelCounts::kWidth);
}

}  // namespace

void add_info_command(CLI::App& app, Run& run) {
  CLI::App* command = app.add_subcommand("info", "Show devices, versions and the model table");
  auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "print JSON");
  command->callback([json, &run] {
    run = [json] {
      const ordered_json info = describe_all();
      if (*json) {
        std::printf("%s\n", info.dump(2).c_str());
      } else {
        print_text(info);
      }
      return kExitOk;
    };
  });
}

}  // namespace depthstill
