// SPDX-License-Identifier: Apache-2.0
// Question: what do other programs on the machine cost us? The demonstration (6,000 examples an
// experience) alone, beside two processes that each keep a processor busy, and with the waiting of
// GNU's OpenMP runtime as it is by itself; and the forward of one token, N = 1M, d = 256, alone and
// beside one busy process. Cannot show: neighbours that use memory bandwidth or the disk.
//
//   bench_busy [--json FILE] [--smoke] [--only PART]
//
// PART: token or demonstration.
#include <ATen/ops/randn.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <torch/csrc/autograd/grad_mode.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "comparison.h"
#include "machine.h"
#include "perennial/core/error.h"
#include "perennial/core/peer.h"
#include "raw_device.h"

namespace perennial::bench {
namespace {

namespace fs = std::filesystem;

// Processes that compute and do nothing else, while it lives.
class BusyProcesses {
 public:
  explicit BusyProcesses(int count) {
    for (int i = 0; i < count; ++i) {
      const pid_t child = ::fork();
      if (child < 0) throw Error("no process can be started");
      if (child == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (volatile unsigned long turns = 0;;) turns = turns + 1;
      }
      children_.push_back(child);
    }
  }
  ~BusyProcesses() {
    for (const pid_t child : children_) {
      ::kill(child, SIGKILL);
      ::waitpid(child, nullptr, 0);
    }
  }
  BusyProcesses(const BusyProcesses&) = delete;
  BusyProcesses& operator=(const BusyProcesses&) = delete;

 private:
  std::vector<pid_t> children_;
};

// What GNU's runtime does when nobody says anything.
constexpr const char* kRuntimesOwnWaiting = "GOMP_SPINCOUNT=300000";

// Seconds that the demonstration takes; `variable`: NAME=VALUE of its environment, or null.
double demonstration(const fs::path& store, bool smoke, const char* variable = nullptr) {
  std::vector<std::string> words = {PERENNIAL_PROGRAM, "demo",    "--store",
                                    store.string(),    "--limit", smoke ? "300" : "6000",
                                    "--quiet"};
  std::vector<char*> arguments, environment;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    if (!text.starts_with("GOMP_SPINCOUNT=") && !text.starts_with("OMP_WAIT_POLICY=")) {
      environment.push_back(*entry);
    }
  }
  std::string own = variable == nullptr ? "" : variable;
  if (!own.empty()) environment.push_back(own.data());
  environment.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  pid_t child = 0;
  const double start = now();
  const int failed =
      ::posix_spawn(&child, arguments[0], &actions, nullptr, arguments.data(), environment.data());
  ::posix_spawn_file_actions_destroy(&actions);
  int status = -1;
  if (failed != 0 || ::waitpid(child, &status, 0) != child || status != 0) {
    throw Error("'perennial demo' failed");
  }
  const double seconds = now() - start;
  fs::remove_all(store);
  return seconds;
}

// Tokens a second, one at a time, for `seconds`.
class OneToken {
 public:
  explicit OneToken(bool smoke)
      : layer_(PeerOptions{.d_in = 256,
                           .d_out = 256,
                           .heads = 8,
                           .top_k = 16,
                           .d_key = 128,
                           .rows = smoke ? 32 : 1024,
                           .cols = smoke ? 32 : 1024,
                           .query_norm = QueryNorm::rms}) {
    layer_->eval();
    for (int i = 0; i < kTokens; ++i) tokens_.push_back(at::randn({1, 256}));
    for (const at::Tensor& token : tokens_) layer_->forward(token);  // its experts come to memory
  }
  double rate(double seconds) {
    const double start = now();
    double count = 0;
    do {
      for (const at::Tensor& token : tokens_) layer_->forward(token);
      count += kTokens;
    } while (now() - start < seconds);
    return count / (now() - start);
  }

 private:
  static constexpr int kTokens = 64;
  Peer layer_;
  std::vector<at::Tensor> tokens_;
};

Row one_token(bool smoke) {
  const torch::NoGradGuard no_gradients;
  OneToken side(smoke);
  const double seconds = smoke ? 0.01 : 4;
  std::vector<double> alone, beside, shares;
  for (int i = 0; i < (smoke ? 1 : 5); ++i) {
    alone.push_back(side.rate(seconds));
    const BusyProcesses busy(1);
    beside.push_back(side.rate(seconds));
    shares.push_back(beside.back() / alone.back());
  }
  return {.name = "forward, 1 token, beside one busy process; beside alone",
          .unit = "tokens/s",
          .ours = summarize(beside),
          .baseline = summarize(alone),
          .ratio = summarize(shares).median,
          .target = 0.5};
}

std::vector<Row> demonstrations(bool smoke) {
  std::string folder = (fs::temp_directory_path() / "perennial-busy-XXXXXX").string();
  if (::mkdtemp(folder.data()) == nullptr) throw Error(folder + " cannot be made");
  const fs::path store = fs::path(folder) / "store";
  const int neighbours = smoke ? 0 : 2;
  // For an instant, nobody spins either: the program once alone and once "beside" is all.
  const auto spins = [&](double instead) {
    return smoke ? instead : demonstration(store, smoke, kRuntimesOwnWaiting);
  };
  std::vector<double> alone, alone_spinning, beside, shares, limits;
  for (int i = 0; i < (smoke ? 1 : 3); ++i) {
    alone.push_back(demonstration(store, smoke));
    alone_spinning.push_back(spins(alone.back()));
    const BusyProcesses busy(neighbours);
    beside.push_back(demonstration(store, smoke));
    shares.push_back(1.05 * alone_spinning.back() / alone.back());
    limits.push_back(3 * alone.back() / beside.back());
  }
  // Once: it takes long.
  const double beside_spinning = [&] {
    const BusyProcesses busy(neighbours);
    return spins(beside.back());
  }();
  fs::remove_all(folder);
  return {{.name = "demonstration alone (at most 1.05 x); beside the runtime's own waiting",
           .unit = "s",
           .ours = summarize(alone),
           .baseline = summarize(alone_spinning),
           .ratio = summarize(shares).median,
           .target = 1},
          {.name = "demonstration beside two busy processes (at most 3 x); beside alone",
           .unit = "s",
           .ours = summarize(beside),
           .baseline = summarize(alone),
           .ratio = summarize(limits).median,
           .target = 1},
          {.name = "demonstration beside two busy processes; beside the runtime's own waiting",
           .unit = "s",
           .ours = summarize(beside),
           .baseline = summarize({beside_spinning}),
           .ratio = beside_spinning / summarize(beside).median}};
}

int run(const Arguments& arguments) {
  const auto only = arguments.own.find("--only");
  const std::string part = only == arguments.own.end() ? "" : only->second;
  if (!part.empty() && part != "token" && part != "demonstration") {
    throw Error("--only is '" + part + "'; it may be token or demonstration");
  }
  std::vector<Row> rows;
  if (part != "demonstration") rows.push_back(one_token(arguments.smoke));
  if (part != "token") {
    for (Row& row : demonstrations(arguments.smoke)) rows.push_back(std::move(row));
  }
  return report_rows(arguments, describe_machine(fs::temp_directory_path()), rows);
}

}  // namespace
}  // namespace perennial::bench

int main(int argc, char** argv) {
  const auto arguments = perennial::bench::parse_arguments(argc, argv, {{"--only", "PART"}});
  try {
    return perennial::bench::run(arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_busy: %s\n", error.what());
    return 1;
  }
}
