// SPDX-License-Identifier: Apache-2.0
// Question: how fast are the CUDA kernels and the PEER layer on them, beside what the device's
// memory and matrix products give at best, and beside eager LibTorch on the same device? Cannot
// show: other layers around this one, paging, several devices.
//
//   bench_cuda [--json FILE] [--smoke] [--only PART] [--tokens T,..] [--d D,..] [--side N,..]
//              [--type fp32,bf16]
//
// PART: experts, retrieval or layer; several with commas between. Without a choice every cell of
// T in 1, 64, 4096, 16384, d in 256, 512, 1024, 2048, N in 128^2, 512^2, 1024^2, 2048^2, H 8, K 16.
// What does not fit is a row that says how many bytes it would take. Where both sides can run, ours
// and eager LibTorch are compared before they are timed. Exit 77 without a device.
#include "bench_cuda.h"

#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <c10/util/Exception.h>
#include <cuda_runtime_api.h>
#include <torch/version.h>

#include <algorithm>
#include <array>
#include <boost/json/serialize.hpp>
#include <cstdio>
#include <exception>
#include <fstream>
#include <sstream>

#include "machine.h"
#include "perennial/core/cuda.h"
#include "perennial/core/error.h"
#include "runtime.h"

namespace perennial::bench {
namespace {

constexpr int kSkipped = 77;
constexpr int kRepetitions = 11, kWarmUps = 3;

void check(cudaError_t error, const char* what) { cuda::check(static_cast<int>(error), what); }

class Event {
 public:
  Event() { check(cudaEventCreate(&event_), "an event"); }
  ~Event() { (void)cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record(const at::Device& device) {
    check(cudaEventRecord(event_, cuda::current_stream(device)), "an event");
  }
  double microseconds_since(const Event& begin) const {
    check(cudaEventSynchronize(event_), "what is timed");
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, begin.event_, event_), "timing");
    return 1e3 * static_cast<double>(milliseconds);
  }

 private:
  cudaEvent_t event_ = nullptr;
};

std::string number(double value, const char* format = "%.0f") {
  char text[32];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

std::string range(const Sample& sample) {
  char text[96];
  std::snprintf(text, sizeof text, "%.1f (%.1f-%.1f)", sample.median, sample.low, sample.high);
  return text;
}

boost::json::object json_of(const Cell& cell) {
  return {{"tokens", cell.tokens},    {"d", cell.d},         {"side", cell.side},
          {"type", cell.type_name()}, {"heads", cell.heads}, {"top_k", cell.top_k}};
}

std::string columns_of(const Cell& cell) {
  char text[96];
  std::snprintf(text, sizeof text, "%lld | %lld | %lld^2 | %s", static_cast<long long>(cell.tokens),
                static_cast<long long>(cell.d), static_cast<long long>(cell.side),
                cell.type_name().c_str());
  return text;
}

}  // namespace

bool has_targets(const Cell& cell) {
  return cell.tokens == 4096 && cell.d == 1024 && cell.side == 1024;
}

void require_near(const char* what, const Cell& cell, const at::Tensor& ours,
                  const at::Tensor& eager, double tolerance) {
  const double difference = (ours - eager).abs().max().item<double>();
  const double size = eager.abs().max().item<double>();
  if (difference <= tolerance * size) return;  // not where either is no number
  throw Error(std::string(what).append(" and eager LibTorch disagree at ") + columns_of(cell) +
              ": by " + number(difference, "%.3g") + ", of values up to " + number(size, "%.3g"));
}

CudaRun::CudaRun(const at::Device& on, bool for_an_instant) : device(on), smoke(for_an_instant) {
  measure_ceilings();
}

std::vector<Sample> CudaRun::time(const std::vector<std::function<void(int)>>& sides) const {
  const int repetitions = smoke ? 1 : kRepetitions;
  std::vector<std::vector<double>> times(sides.size());
  for (int i = 0; i < (smoke ? 1 : kWarmUps); ++i) {
    for (const auto& side : sides) side(i);
  }
  for (int i = 0; i < repetitions; ++i) {
    for (std::size_t s = 0; s < sides.size(); ++s) {
      Event begin, end;
      begin.record(device);
      sides[s](i);
      end.record(device);
      times[s].push_back(end.microseconds_since(begin));
    }
  }
  check(cudaGetLastError(), "a kernel");
  std::vector<Sample> samples;
  for (const auto& side : times) samples.push_back(summarize(side));
  return samples;
}

void CudaRun::measure_ceilings() {
  const at::TensorOptions here = at::TensorOptions().device(device);
  const std::int64_t bytes = smoke ? 1 << 20 : 1 << 30, side = smoke ? 64 : 4096;
  const at::Tensor from = at::empty({bytes}, here.dtype(at::kByte)).zero_(),
                   to = at::empty_like(from);
  ceilings_.copied_bytes =
      2.0 * static_cast<double>(bytes) / time([&](int) { to.copy_(from); }).median / 1e3;
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor a = at::randn({side, side}, at::kFloat).to(device).to(type);
    at::Tensor out = at::empty_like(a);
    const double us = time([&](int) { at::matmul_out(out, a, a); }).median;
    const double rate = 2 * static_cast<double>(side * side * side) / us / 1e3;
    (type == at::kFloat ? ceilings_.fp32_flops : ceilings_.bf16_flops) = rate;
  }
}

bool CudaRun::fits(const std::string& what, const Cell& cell, double bytes) {
  constexpr double kFull = 0.95;
  const auto available = static_cast<double>(cuda::memory_of(device).available);
  if (bytes <= kFull * available) return true;
  std::printf("| %s | %s | does not fit: %.3g of %.3g GB | | | | | | | |\n", what.c_str(),
              columns_of(cell).c_str(), bytes / 1e9, available / 1e9);
  boost::json::object row = json_of(cell);
  row["kernel"] = what;
  row["fits"] = false;
  row["bytes"] = bytes;
  rows_.push_back(std::move(row));
  return false;
}

void CudaRun::begin_table() {
  std::printf(
      "copy within the device %.0f GB/s, at::matmul fp32 %.0f, bf16 %.0f GFLOP/s\n\n"
      "| kernel | tokens | d | N | weights | us | GB/s | gross GB/s | GFLOP/s | of random rows | "
      "of a copy | of at::matmul | eager, us | eager / ours | target |\n"
      "|---|---:|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|\n",
      ceilings_.copied_bytes, ceilings_.fp32_flops, ceilings_.bf16_flops);
}

void CudaRun::add(const CudaRow& row) {
  const double us = row.us.median, rate = row.work.bytes / us / 1e3;
  const double flops = row.work.flops / us / 1e3;
  const double gemm =
      row.cell.type == kernels::WeightType::bf16 ? ceilings_.bf16_flops : ceilings_.fp32_flops;
  boost::json::object json = json_of(row.cell);
  json["kernel"] = row.kernel;
  json["us"] = us;
  json["us_range"] = {row.us.low, row.us.high};
  std::string text("| ");
  text.append(row.kernel).append(" | ").append(columns_of(row.cell)).append(" | ");
  text.append(range(row.us));
  const auto column = [&](const char* key, double value, bool there, const char* format) {
    text.append(" | ").append(there ? number(value, format) : "");
    if (there) json[key] = value;
  };
  column("gb_per_s", rate, row.work.bytes > 0, "%.0f");
  column("gross_gb_per_s", row.work.gross / us / 1e3, row.work.gross > 0, "%.0f");
  column("gflop_per_s", flops, row.work.flops > 0, "%.0f");
  const double share = row.random_rows > 0 ? rate / row.random_rows : 0;
  column("of_random_rows", share, row.random_rows > 0, "%.2f");
  column("of_copy", rate / ceilings_.copied_bytes, row.work.bytes > 0, "%.2f");
  column("of_matmul", flops / gemm, row.work.flops > 0, "%.3f");
  text.append(" | ").append(row.eager_us ? range(*row.eager_us) : "");
  const double ratio = row.eager_us ? row.eager_us->median / us : 0;
  if (row.eager_us) {
    json["eager_us"] = row.eager_us->median;
    json["eager_us_range"] = {row.eager_us->low, row.eager_us->high};
  }
  column("ratio", ratio, row.eager_us.has_value(), "%.2f");
  const auto judge = [&](const char* of, double value, double target) {
    const bool met = value >= target;
    text.append(" ").append(of).append(" >= ").append(number(target, "%.2g"));
    text.append(met ? " met" : " MISSED");
    json["target"] = target;
    json["met"] = met;
    missed_ = missed_ || !met;
  };
  text.append(" |");
  if (row.share_target) judge("of random rows", share, *row.share_target);
  if (row.ratio_target && row.eager_us) judge("eager / ours", ratio, *row.ratio_target);
  std::printf("%s |\n", text.c_str());
  std::fflush(stdout);
  rows_.push_back(std::move(json));
}

namespace {

struct Part {
  const char* name;
  void (*measure)(CudaRun&, const Cell&);
};
constexpr std::array<Part, 3> kParts{
    {{"experts", bench_experts}, {"retrieval", bench_retrieval}, {"layer", bench_layer}}};

std::string versions() {
  int driver = 0, runtime = 0;
  check(cudaDriverGetVersion(&driver), "the driver's version");
  check(cudaRuntimeGetVersion(&runtime), "the runtime's version");
  const auto text = [](int version) {
    return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
  };
  return "driver for CUDA " + text(driver) + ", runtime " + text(runtime) + ", LibTorch " +
         TORCH_VERSION;
}

int write_json(const std::string& path, const CudaRun& run, const std::string& name,
               const std::string& command) {
  if (path.empty()) return 0;
  boost::json::object machine = describe_machine(".");
  machine["device"] = name;
  machine["versions"] = versions();
  machine["command"] = command;
  machine["copy_gb_per_s"] = run.ceilings().copied_bytes;
  machine["matmul_fp32_gflop_per_s"] = run.ceilings().fp32_flops;
  machine["matmul_bf16_gflop_per_s"] = run.ceilings().bf16_flops;
  std::ofstream file(path);
  file << "{\"machine\": " << boost::json::serialize(machine) << ",\n \"rows\": [";
  const char* separator = "\n  ";
  for (const boost::json::value& row : run.rows()) {
    file << separator << boost::json::serialize(row);
    separator = ",\n  ";
  }
  file << "\n]}\n";
  file.close();
  if (file) return 0;
  std::fprintf(stderr, "%s could not be written\n", path.c_str());
  return 1;
}

// Whether one of the names with commas between is `part`.
bool wanted(const std::string& only, const std::string& part) {
  std::istringstream names(only);
  for (std::string name; std::getline(names, name, ',');) {
    if (name == part) return true;
  }
  return only.empty();
}

int measure(int argc, char** argv) {
  const Arguments arguments = parse_arguments(
      argc, argv,
      {{"--only", "PART"}, {"--tokens", "T"}, {"--d", "D"}, {"--side", "N"}, {"--type", "TYPE"}});
  const auto flag = [&](const char* name) {
    const auto found = arguments.own.find(name);
    return found == arguments.own.end() ? std::string() : found->second;
  };
  const std::string only = flag("--only");
  if (!only.empty() &&
      std::ranges::none_of(kParts, [&](const Part& part) { return wanted(only, part.name); })) {
    throw Error("--only takes experts, retrieval, layer, not '" + only + "'");
  }
  std::vector<Cell> all =
      cells(Selection::parse(flag("--tokens"), flag("--d"), flag("--side"), flag("--type")));
  if (arguments.smoke) {
    all = {{.tokens = 3, .d = 24, .side = 16, .heads = 2, .top_k = 4, .sub_dim = 8}};
    all.push_back(all.front());
    all.back().type = kernels::WeightType::bf16;
  }
  at::Device device = at::kCPU;
  try {
    device = cuda::require_device();
  } catch (const DeviceError& error) {
    std::printf("SKIPPED: %s\n", error.what());
    return kSkipped;
  }
  // Eager LibTorch in full fp32, as ours.
  at::globalContext().setAllowTF32CuBLAS(false);
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, device.index()), "the device's name");
  const std::string name = properties.name;
  std::printf("%s, %s\n", name.c_str(), versions().c_str());
  CudaRun run(device, arguments.smoke);
  run.begin_table();
  for (const Part& part : kParts) {
    if (!wanted(only, part.name)) continue;
    for (const Cell& cell : all) part.measure(run, cell);
  }
  std::string command;
  for (int i = 0; i < argc; ++i)
    command.append(i > 0 ? " " : "").append(i > 0 ? argv[i] : "bench_cuda");
  return write_json(arguments.json, run, name, command);
}

}  // namespace
}  // namespace perennial::bench

int main(int argc, char** argv) {
  try {
    return perennial::bench::measure(argc, argv);
  } catch (const c10::Error& error) {
    std::fprintf(stderr, "bench_cuda: %s\n", error.what_without_backtrace());
    return 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_cuda: %s\n", error.what());
    return 1;
  }
}
