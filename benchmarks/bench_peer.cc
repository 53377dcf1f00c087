// SPDX-License-Identifier: Apache-2.0
// Question: how fast are a PEER layer's forward, backward and Adam step on this CPU, beside the
// same layer by hand with eager LibTorch, beside dense layers, and beside what memory and matrix
// products give at best? Cannot show: paging (see bench_paging), layers around this one, quality.
//
//   bench_peer [--json FILE] [--smoke] [--only PART] [--threads N] [--clock CLOCK] [--peers FILE]
//
// PART: ceilings, experts, forward, training, parts, paged, dense, axes or peers (with --peers FILE
// only: the figures of benchmarks/peers/peers.py); several with commas between. Without it all of
// them, in up to 14 GB of memory. N: threads of both sides, one a core by default. CLOCK: wall, or
// cpu, the time that the process was running, for one thread on a machine that others use too.
#include "bench_peer.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <malloc.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <random>

#include "machine.h"
#include "peer_sides.h"

namespace perennial::bench {
namespace {

// Memory that both sides may take together.
constexpr double kMostBytes = 13e9;
// Beside tables and moments: a step's own tensors and what the process had at the start.
constexpr double kSpareBytes = 1.5e9;
// Calls shorter than this are repeated.
constexpr double kLeastSeconds = 0.05;

double kilobytes_of(const char* path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(key)) return std::strtod(line.c_str() + key.size(), nullptr);
  }
  fail(std::string(path) + " has no " + key);
}

double seconds_a_call(const PeerRun& run, const std::function<void()>& call) {
  const auto clock = run.cpu_clock ? cpu_seconds : now;
  const double start = clock();
  double calls = 0;
  do {
    call();
    ++calls;
  } while (!run.smoke && clock() - start < kLeastSeconds);
  return (clock() - start) / calls;
}

}  // namespace

PeerRun::PeerRun(bool smoke_run, int thread_count, bool by_cpu_clock, std::string peers_file)
    : smoke(smoke_run),
      threads(thread_count),
      cpu_clock(by_cpu_clock),
      peers(std::move(peers_file)) {}
PeerRun::~PeerRun() = default;

PeerSizes PeerRun::sizes(std::int64_t side, std::int64_t width) const {
  return smoke ? PeerSizes{.side = side / 32, .width = width / 8, .top_k = 4, .d_key = 16}
               : PeerSizes{.side = side, .width = width};
}

OurSide& PeerRun::ours() {
  if (!ours_) ours_ = std::make_unique<OurSide>(sizes(1024, 256));
  return *ours_;
}
EagerSide& PeerRun::eager() {
  if (!eager_) eager_ = std::make_unique<EagerSide>(ours());
  return *eager_;
}
void PeerRun::drop_sides() {
  eager_.reset();
  ours_.reset();
}

bool PeerRun::fits(const std::string& what, double bytes) {
  // What this process has already counts as there.
  const double kilobytes =
      kilobytes_of("/proc/meminfo", "MemAvailable:") + kilobytes_of("/proc/self/status", "VmRSS:");
  const double available = std::min(kMostBytes, 1024 * kilobytes - kSpareBytes);
  if (bytes <= available) return true;
  char text[160];
  std::snprintf(text, sizeof text, ": left out, its weights and moments are %.3g GB, %.3g GB fit",
                1e-9 * bytes, 1e-9 * available);
  notes.push_back(what + text);
  return false;
}

std::vector<std::vector<double>> time_sides(const PeerRun& run, std::size_t repetitions,
                                            const std::vector<std::function<void()>>& sides) {
  Sides timed;
  for (const auto& side : sides) {
    timed.emplace_back([&run, &side] { return seconds_a_call(run, side); });
    side();
  }
  return interleave(repetitions, timed);
}

double transient_bytes(const std::function<void()>& call) {
  malloc_trim(0);
  // Sets the highest mark of resident memory to what is resident now.
  std::ofstream("/proc/self/clear_refs") << "5";
  const double before = kilobytes_of("/proc/self/status", "VmRSS:");
  call();
  return 1024 * (kilobytes_of("/proc/self/status", "VmHWM:") - before);
}

Row share_row(std::string name, std::string unit, const std::vector<double>& values,
              const std::vector<double>& whole, std::optional<double> target) {
  std::vector<double> shares;
  for (std::size_t i = 0; i < values.size(); ++i) shares.push_back(values[i] / whole[i]);
  return {.name = std::move(name),
          .unit = std::move(unit),
          .ours = summarize(values),
          .baseline = summarize(whole),
          .ratio = summarize(shares).median,
          .target = target,
          .ceiling = summarize(whole).median};
}

std::string count_of(std::int64_t count, const std::string& what) {
  const std::string digits = std::to_string(count);
  std::string text;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text.push_back(',');
    text.push_back(digits[i]);
  }
  text.append(" ").append(what);
  if (count != 1) text.push_back('s');
  return text;
}

ThreadsScope::ThreadsScope(int threads) : before_(at::get_num_threads()) {
  at::set_num_threads(threads);
}
ThreadsScope::~ThreadsScope() { at::set_num_threads(before_); }

Batches::Batches(const PeerRun& run, const PeerSizes& sizes, std::int64_t tokens, Usage usage) {
  constexpr std::int64_t kVocabulary = 32768;
  // 8,192 tokens name a million experts, 2 GB of them at d = 256.
  const std::int64_t count = run.smoke ? 2 : std::max<std::int64_t>(4, 8192 / tokens);
  if (usage == Usage::uniform) {
    const at::Tensor all = at::randn({count * tokens, sizes.width});
    for (std::int64_t i = 0; i < count; ++i) batches_.push_back(all.narrow(0, i * tokens, tokens));
    return;
  }
  std::mt19937_64 random(1);
  std::vector<double> weights;
  for (std::int64_t rank = 1; rank <= kVocabulary; ++rank) {
    weights.push_back(std::pow(static_cast<double>(rank), -1.1));
  }
  std::discrete_distribution<std::int64_t> word(weights.begin(), weights.end());
  const at::Tensor vocabulary = at::randn({kVocabulary, sizes.width});
  for (std::int64_t i = 0; i < count; ++i) {
    std::vector<std::int64_t> words;
    for (std::int64_t t = 0; t < tokens; ++t) words.push_back(word(random));
    batches_.push_back(at::embedding(vocabulary, at::tensor(words)));
  }
}

std::function<const at::Tensor&()> Batches::turn() const {
  return [this, next = std::size_t{0}]() mutable -> const at::Tensor& {
    return batches_[next++ % batches_.size()];
  };
}

namespace {

struct Part {
  const char* name;
  void (*measure)(PeerRun&);
};
// Those that need the layers of a million experts first, in the order of what they add to memory.
constexpr std::array<Part, 9> kParts{{{"ceilings", bench_ceilings},
                                      {"experts", bench_experts},
                                      {"forward", bench_forward},
                                      {"training", bench_training},
                                      {"parts", bench_parts},
                                      {"peers", bench_packages},
                                      {"paged", bench_paged},
                                      {"dense", bench_dense},
                                      {"axes", bench_axes}}};

std::string flag(const Arguments& arguments, const char* name) {
  const auto found = arguments.own.find(name);
  return found == arguments.own.end() ? "" : found->second;
}

bool wanted(const std::string& only, const std::string& part) {
  return only.empty() || ("," + only + ",").find("," + part + ",") != std::string::npos;
}

int run_peer(const Arguments& arguments) {
  const std::string only = flag(arguments, "--only"), threads = flag(arguments, "--threads");
  const bool any =
      std::ranges::any_of(kParts, [&](const Part& part) { return wanted(only, part.name); });
  const int count = threads.empty() ? at::get_num_threads() : std::atoi(threads.c_str());
  const std::string clock = flag(arguments, "--clock");
  const bool by_cpu = clock == "cpu";
  if (!any || count < 1 || (!clock.empty() && clock != "wall" && !by_cpu) ||
      (by_cpu && count != 1)) {
    std::fprintf(stderr,
                 "bench_peer: --only names no part, --threads is below 1, --clock is neither wall "
                 "nor cpu, or it is cpu without --threads 1\n");
    return 2;
  }
  at::set_num_threads(count);
  at::manual_seed(1);
  PeerRun run(arguments.smoke, count, by_cpu, flag(arguments, "--peers"));
  boost::json::object machine = describe_machine(".");
  machine["threads"] = count;
  machine["clock"] = by_cpu ? "cpu" : "wall";
  for (const Part& part : kParts) {
    if (!wanted(only, part.name)) continue;
    const double start = now();
    part.measure(run);
    std::fprintf(stderr, "bench_peer: %s took %.0f s\n", part.name, now() - start);
  }
  const int code = report_rows(arguments, machine, run.rows);
  for (const std::string& note : run.notes) std::printf("\n%s\n", note.c_str());
  return code;
}

}  // namespace
}  // namespace perennial::bench

int main(int argc, char** argv) {
  const auto arguments = perennial::bench::parse_arguments(argc, argv,
                                                           {{.name = "--only", .value = "PART"},
                                                            {.name = "--threads", .value = "N"},
                                                            {.name = "--clock", .value = "CLOCK"},
                                                            {.name = "--peers", .value = "FILE"}});
  try {
    return perennial::bench::run_peer(arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_peer: %s\n", error.what());
    return 1;
  }
}
