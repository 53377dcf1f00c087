// SPDX-License-Identifier: Apache-2.0
// Fifty tasks: does learning stay as fast, growth as small, and what was learnt as it was?
//
// A stream of permuted Fashion-MNIST, grow_freeze with isolated routing (reach 0: a generation
// reads no other), once with the analytic gate and once with the oracle. Of each: examples a second
// and store growth by task; from the snapshots, every answer to a fixed part of the test sets
// before and after each later task. With the oracle no answer and no column of the matrix may
// change; with the gate one may change only together with the generation that the gate chose. It
// exits 1 when one does. What it cannot show: accuracy at full size (see docs/continual.md), other
// machines.
#include <ATen/Parallel.h>
#include <stdlib.h>

#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "comparison.h"
#include "perennial/continual/run_folder.h"
#include "perennial/continual/trainer.h"
#include "perennial/kernels/philox.h"
#include "perennial/storage/rocksdb_store.h"

namespace perennial::bench {
namespace {

namespace fs = std::filesystem;
using namespace perennial::continual;

struct Size {
  std::int64_t tasks = 50, examples = 2000, tests = 500, probes = 100, features = 1000;
  std::string dataset = "fashion-mnist";
};

RunConfig config_of(const Size& size, GateChoice gate) {
  RunConfig config;
  config.stream.dataset = size.dataset;
  config.stream.experiences = size.tasks;
  config.stream.limit = size.examples;
  config.stream.test_limit = size.tests;
  config.train.strategy = "grow_freeze";
  config.train.gate = gate;
  config.train.gate_options.features = size.features;
  config.train.batch = 50;
  config.train.lr = 2e-3;
  config.train.lr_schedule = LrSchedule::linear;
  config.train.commit_every = 0;
  return config;
}

double median(std::vector<double> values) { return summarize(std::move(values)).median; }

std::vector<double> part(const std::vector<double>& all, std::size_t first, std::size_t count) {
  const auto begin = all.begin() + static_cast<std::ptrdiff_t>(first);
  return {begin, begin + static_cast<std::ptrdiff_t>(count)};
}

struct Changes {
  std::int64_t answers = 0, changed = 0, unexplained = 0;
};

// Of every pair of neighbouring snapshots: the answers to the first test inputs of each task that
// was learnt by the earlier one.
Changes compare(const storage::PageStore& store, const Stream& stream, const Size& size) {
  Changes changes;
  std::vector<Prediction> before;
  const bool oracle = value_or_throw(stored_config(store)).gate() == GateKind::oracle;
  for (std::int64_t k = 1; k <= size.tasks; ++k) {
    const auto then =
        value_or_throw(store.at(value_or_throw(store.resolve("experience-" + std::to_string(k)))));
    const LearntModel learnt = load_learnt(*then, 0);
    for (std::int64_t j = 0; j < k; ++j) {
      const auto own = static_cast<std::uint32_t>(learnt.model->generation_of(j));
      Prediction now = learnt.model->predict(stream.test_batch(j, 0, size.probes).x,
                                             oracle ? std::optional(own) : std::nullopt);
      if (j + 1 == k) {
        before.push_back(std::move(now));
        continue;
      }
      Prediction& was = before[static_cast<std::size_t>(j)];
      const torch::Tensor other = now.answers.ne(was.answers).any(1);
      changes.answers += size.probes;
      changes.changed += other.sum().item<std::int64_t>();
      changes.unexplained +=
          other.logical_and(now.generations.eq(was.generations)).sum().item<std::int64_t>();
      was = std::move(now);
    }
  }
  return changes;
}

// Entries below the diagonal that differ from their column's entry at the freeze.
std::int64_t moved(const ScoreMatrix& matrix) {
  std::int64_t count = 0;
  for (std::int64_t j = 0; j < matrix.experiences(); ++j) {
    for (std::int64_t row = j + 2; row <= matrix.experiences(); ++row) {
      count += matrix.at(row, j) == matrix.at(j + 1, j) ? 0 : 1;
    }
  }
  return count;
}

bool measure(const fs::path& folder, const Size& size, GateChoice gate) {
  const RunConfig config = config_of(size, gate);
  const Stream stream(config.stream);
  const auto store = value_or_throw(
      storage::open_rocksdb_store(folder.string(), {.mode = storage::OpenMode::create}));
  RunSettings settings;
  settings.run_folder = folder / "run";
  Trainer trainer(config, stream, store.get(), settings);
  const RunResult result = trainer.run();
  std::vector<double> speed, growth;
  double store_bytes = 0;
  for (const ExperienceFigures& figures : read_run_folder(settings.run_folder).experiences) {
    speed.push_back(figures.examples_per_second.value_or(0));
    growth.push_back(figures.store_bytes.value_or(0) - store_bytes);
    store_bytes = figures.store_bytes.value_or(0);
  }
  const std::size_t n = std::min<std::size_t>(10, speed.size() / 2);
  const double first = median(part(speed, 0, n)), last = median(part(speed, speed.size() - n, n));
  // The first task also makes the store.
  const Sample bytes = summarize(part(growth, 1, growth.size() - 1));
  const Changes changes = compare(*store, stream, size);
  const std::string name(enum_name(config.gate()));
  std::printf("%s gate: acc %.4f, gate accuracy %s\n", name.c_str(), *acc(result.matrix),
              result.gate_accuracy ? std::to_string(*result.gate_accuracy).c_str() : "-");
  std::printf("  examples/s: first %zu tasks %.0f, last %zu tasks %.0f, ratio %.3f\n", n, first, n,
              last, last / first);
  std::printf("  store growth a task: median %.0f bytes, least %.0f, most %.0f; whole store %.0f\n",
              bytes.median, bytes.low, bytes.high, store_bytes);
  std::printf("  matrix entries that left their column's value at its freeze: %lld of %lld\n",
              static_cast<long long>(moved(result.matrix)),
              static_cast<long long>(size.tasks * (size.tasks - 1) / 2));
  std::printf(
      "  answers changed by a later task: %lld of %lld, without another choice of the "
      "gate: %lld\n",
      static_cast<long long>(changes.changed), static_cast<long long>(changes.answers),
      static_cast<long long>(changes.unexplained));
  const bool oracle = config.gate() == GateKind::oracle;
  return changes.unexplained == 0 &&
         (!oracle || (changes.changed == 0 && moved(result.matrix) == 0));
}

// Images that say nothing, for a run that only has to end.
void write_images(const fs::path& folder) {
  const auto idx = [&](const char* name, std::vector<std::uint32_t> shape, std::uint32_t below) {
    std::ofstream out(folder / name, std::ios::binary);
    out.put(0).put(0).put(8).put(static_cast<char>(shape.size()));
    std::size_t bytes = 1;
    for (const std::uint32_t extent : shape) {
      for (int shift = 24; shift >= 0; shift -= 8) out.put(static_cast<char>(extent >> shift));
      bytes *= extent;
    }
    kernels::RandomStream random(3);
    for (std::size_t i = 0; i < bytes; ++i) out.put(static_cast<char>(random.below(below)));
  };
  for (const auto& [prefix, count] : {std::pair{"train", 120U}, std::pair{"t10k", 60U}}) {
    idx((std::string(prefix) + "-images-idx3-ubyte").c_str(), {count, 8, 8}, 256);
    idx((std::string(prefix) + "-labels-idx1-ubyte").c_str(), {count}, 10);
  }
}

int run(const Arguments& arguments) {
  at::set_num_threads(1);  // bits do not depend on what runs beside it
  std::string folder = (fs::temp_directory_path() / "perennial-tasks-XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) throw Error(folder + " cannot be made");
  Size size;
  bool kept = true;
  if (arguments.smoke) {
    size = {.tasks = 4, .examples = 100, .tests = 40, .probes = 20, .features = 64, .dataset = {}};
    fs::create_directories(fs::path(folder) / "data");
    write_images(fs::path(folder) / "data");
    size.dataset = folder + "/data";
  }
  for (const GateChoice gate : {GateChoice::analytic, GateChoice::oracle}) {
    kept = measure(fs::path(folder) / std::string(enum_name(gate)), size, gate) && kept;
  }
  fs::remove_all(folder);
  return kept ? 0 : 1;
}

}  // namespace
}  // namespace perennial::bench

int main(int argc, char** argv) {
  const auto arguments = perennial::bench::parse_arguments(argc, argv);
  try {
    return perennial::bench::run(arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_fifty_tasks: %s\n", error.what());
    return 1;
  }
}
