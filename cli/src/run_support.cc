// SPDX-License-Identifier: Apache-2.0
// Running and reporting.
#include "run_support.h"

#include <ATen/Parallel.h>

#include <boost/json/parse.hpp>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <ostream>
#include <thread>

#include "device.h"
#include "interrupt.h"
#include "perennial/storage/memory_store.h"
#include "progress.h"

namespace perennial::cli {

void RunFlags::add_to(Flags& flags) {
  flags
      .add_bytes("budget", budget_bytes,
                 "memory for the pool's pages; 0 = as much as it needs. Changes no number",
                 Range{0, 1e15})
      .add("threads", threads, "threads; 0 = one a core", Range{0, 1024})
      .add_switch("exact", exact,
                  "refuse to resume on another thread count, processor or device, where bits may "
                  "differ")
      .add_text("device", device, "NAME",
                "where the model computes: cpu, cuda, cuda:1, ..., or auto: CUDA where this build, "
                "the machine and its memory allow it. No part of the run: it may go on elsewhere");
}

void RunFlags::add_training_to(Flags& flags) {
  flags
      .add("commit_seconds", commit_seconds,
           "beside --commit-every: seconds between commits, which are made while training goes on; "
           "0 = off",
           Range{0, 1e9})
      .add_bytes("commit_dirty", commit_dirty_bytes,
                 "and once this many bytes of pages have changed in the host's memory; 0 = off",
                 Range{0, 1e15})
      .add("routing_inputs", routing_inputs,
           "inputs of each test set whose routing is recorded after each experience; 0 = off",
           Range{0, 1e9});
}

void RunFlags::apply(const CommonOptions& common) {
  DeviceChoice choice = choose_device(device);
  placement = std::move(choice.placement);
  if (!common.quiet && !choice.note.empty()) std::cerr << "note: " << choice.note << '\n';
  const auto cores = static_cast<std::int64_t>(std::thread::hardware_concurrency());
  at::set_num_threads(static_cast<int>(threads > 0 ? threads : std::max<std::int64_t>(1, cores)));
}

namespace {

// The settings of a run whose progress `display` shows; it must outlive the run.
continual::RunSettings settings_with(ProgressDisplay& display, const std::string& run_folder,
                                     const RunFlags& flags, const std::string& label) {
  continual::RunSettings settings;
  settings.run_folder = run_folder;
  settings.budget_bytes = flags.budget_bytes;
  settings.exact = flags.exact;
  settings.placement = flags.placement;
  settings.commit_seconds = flags.commit_seconds;
  settings.commit_dirty_bytes = flags.commit_dirty_bytes;
  settings.routing_inputs = flags.routing_inputs;
  settings.retention = flags.retention;
  settings.stop_requested = [] { return InterruptGuard::interrupted(); };
  settings.on_warning = [&display](const std::string& warning) {
    display.clear();
    std::cerr << "warning: " << warning << std::endl;
  };
  // loss: of the last step, once there was one
  settings.on_progress = [&display, label,
                          loss = std::string()](const continual::Progress& progress) mutable {
    if (progress.phase == "training") {
      char text[32];
      std::snprintf(text, sizeof(text), "loss %.3f", progress.loss);
      loss = text;
    }
    display.update({label + ", " + progress.phase + " " + std::to_string(progress.experience + 1) +
                        " of " + std::to_string(progress.experiences),
                    progress.examples_done, progress.examples_total, "examples", loss});
  };
  return settings;
}

}  // namespace

continual::RunResult run_with_progress(const continual::RunConfig& config,
                                       const continual::Stream& stream, storage::PageStore* store,
                                       const std::string& run_folder, const RunFlags& flags,
                                       const std::string& label, bool quiet,
                                       const std::function<void()>& on_accepted) {
  ProgressDisplay display(quiet);
  continual::Trainer trainer(config, stream, store,
                             settings_with(display, run_folder, flags, label));
  if (on_accepted) on_accepted();
  const InterruptGuard guard;
  return trainer.run();
}

std::optional<continual::RunResult> follow_with_progress(
    const continual::RunConfig& config, const continual::FollowOptions& follow,
    storage::PageStore* store, const std::function<storage::PageStore*()>& make_store,
    const std::string& run_folder, const RunFlags& flags, const std::string& label, bool quiet) {
  ProgressDisplay display(quiet);
  continual::FollowSettings settings;
  settings.run = settings_with(display, run_folder, flags, label);
  settings.store = store;
  settings.make_store = make_store;
  settings.on_experience = [&](const continual::RunResult& result, const std::string& bad_rows) {
    display.clear();
    if (quiet) return;
    std::cerr << "experience " << result.matrix.experiences() << ": "
              << continual::score_names(result.task).metric << ' '
              << format_metric(continual::acc(result.matrix)) << " on all test sets";
    if (!bad_rows.empty()) std::cerr << "; " << bad_rows;
    std::cerr << std::endl;
  };
  const InterruptGuard guard;
  return continual::follow_table(config, follow, settings);
}

void check_run(const continual::RunConfig& config, const continual::Stream& stream,
               const RunFlags& flags) {
  const auto store = storage::make_memory_store();
  continual::RunSettings settings;
  settings.budget_bytes = flags.budget_bytes;
  settings.placement = flags.placement;
  const continual::Trainer trainer(config, stream, store.get(), settings);
}

continual::LearntModel load_learnt(const storage::PageReader& store, const RunFlags& flags,
                                   const CommonOptions& common) {
  return continual::load_learnt(store, flags.budget_bytes, flags.placement,
                                [&](const std::string& warning) {
                                  if (!common.quiet) std::cerr << "note: " << warning << '\n';
                                });
}

std::string read_text(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) throw DataError(file.string() + ": cannot be read");
  return {std::istreambuf_iterator<char>(in), {}};
}

continual::RunConfig read_config(const std::filesystem::path& file) {
  const std::string text = read_text(file);
  try {
    return continual::RunConfig::from_json(boost::json::parse(text).as_object());
  } catch (const boost::system::system_error& error) {
    throw DataError(file.string() + " holds no settings of a run: " + error.code().message());
  } catch (const InvalidOptions& error) {
    throw InvalidOptions(file.string() + ": " + error.what());
  }
}

bool routes_alone(const continual::ModelOptions& model) {
  return model.model == continual::ModelKind::peer && model.width == 0 &&
         model.head == continual::HeadKind::trained && model.peer.routing == Routing::isolated;
}

std::string format_metric(const std::optional<double>& value) {
  if (!value) return "-";
  char text[32];
  std::snprintf(text, sizeof(text), "%.4f", *value);
  return text;
}

namespace {

// The metrics of the anytime curve, and how it was taken.
void print_anytime(std::ostream& out, const continual::RunResult& result) {
  const continual::AnytimeCurve& curve = result.anytime;
  if (!curve.options.on()) return;
  const std::int64_t n = curve.test_sets;
  const std::string metric = continual::score_names(curve.task).metric;
  out << "anytime " << format_metric(continual::anytime(curve)) << "   lca "
      << format_metric(curve.options.anytime_first > 0
                           ? continual::lca(curve, curve.options.anytime_first)
                           : std::nullopt)
      << "   min_" << metric << ' ' << format_metric(continual::min_acc(curve, n)) << "   wc_"
      << metric << ' ' << format_metric(continual::wc_acc(curve, n)) << "   (on ";
  if (curve.options.anytime_examples > 0) {
    out << format_count(curve.options.anytime_examples) << " examples of ";
  }
  out << "each test set";
  if (curve.options.anytime_every > 0) {
    out << ", every "
        << format_number_of(static_cast<std::uint64_t>(curve.options.anytime_every), "step");
  }
  if (curve.options.anytime_first > 0) {
    out << ", and around the first " << curve.options.anytime_first << " of each experience";
  }
  out << ")\n";
}

}  // namespace

void print_errors(std::ostream& out, const std::vector<std::string>& targets,
                  const std::vector<std::vector<double>>& errors) {
  for (std::size_t t = 0; t < targets.size() && !errors.empty(); ++t) {
    out << "rmse of " << targets[t] << " on each test set:";
    for (const std::vector<double>& of_set : errors) {
      char text[32];
      std::snprintf(text, sizeof(text), " %.4g", of_set[t]);
      out << text;
    }
    out << '\n';
  }
}

void print_result(std::ostream& out, const continual::RunResult& result) {
  const continual::ScoreNames& names = continual::score_names(result.task);
  const std::int64_t n = result.matrix.experiences();
  std::vector<Table::Column> columns = {{"after", Align::left}};
  for (std::int64_t j = 1; j <= n; ++j) columns.push_back({"test " + std::to_string(j)});
  Table table(columns);
  for (std::int64_t i = 0; i <= n; ++i) {
    if (!result.matrix.has_row(i)) continue;
    std::vector<std::string> cells = {i == 0 ? "no training" : "experience " + std::to_string(i)};
    for (std::int64_t j = 0; j < n; ++j) {
      char cell[16] = "-";
      if (result.matrix.has(i, j)) {
        const double score = result.matrix.at(i, j);
        std::snprintf(cell, sizeof(cell), names.percent ? "%.2f" : "%.4f",
                      names.percent ? 100 * score : score);
      }
      cells.push_back(cell);
    }
    table.add_row(std::move(cells));
  }
  out << names.title << " on each test set" << (names.percent ? ", in percent:\n" : ":\n");
  table.print(out);
  out << names.metric << ' ' << format_metric(continual::acc(result.matrix)) << "   bwt.gem "
      << format_metric(continual::bwt_gem(result.matrix)) << "   fwt.gem "
      << format_metric(continual::fwt_gem(result.matrix)) << "   forgetting.chaudhry "
      << format_metric(continual::forgetting_chaudhry(result.matrix));
  if (result.gate_accuracy) out << "   gate accuracy " << format_metric(result.gate_accuracy);
  out << '\n';
  print_errors(out, result.targets, result.errors);
  print_anytime(out, result);
  if (!result.unlearned_since.empty()) {
    out << "all of this was measured before generation";
    for (std::size_t i = 0; i < result.unlearned_since.size(); ++i) {
      out << (i == 0 ? result.unlearned_since.size() > 1 ? "s " : " " : ", ")
          << result.unlearned_since[i];
    }
    out << (result.unlearned_since.size() > 1 ? " were" : " was")
        << " unlearned; 'perennial eval' measures what is left\n";
  }
}

}  // namespace perennial::cli
