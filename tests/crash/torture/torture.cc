// SPDX-License-Identifier: Apache-2.0
// The torture harness of the durable store: kills, power cuts, faults, flipped bits, two writers.
// Exit code: 0 nothing was lost and every mutant was caught, 1 otherwise, 2 usage.
#include <boost/json.hpp>
#include <boost/program_options.hpp>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <sstream>

#include "runner.h"

namespace perennial::storage::testing {
namespace {

namespace json = boost::json;
namespace po = boost::program_options;

constexpr std::uint64_t kMutantCycles = 200;  // within so many a mutant has to be caught

struct Flags {
  std::uint64_t cycles = 1000;
  std::uint64_t seed = 1;
  std::string kinds = "kill,power,fault,flip,writers";
  bool mutants = false;
  unsigned jobs = 2;
  std::string json;
  std::string folder;
  std::uint64_t session = 0;
  std::string mutant;
};

Mutant mutant_of(const std::string& name) {
  if (name.empty()) return Mutant::none;
  for (const MutantName& entry : kMutants) {
    if (entry.name == name) return entry.mutant;
  }
  throw po::error("there is no mutant '" + name + "'");
}

std::vector<const KindOfTorture*> kinds_of(const std::string& list) {
  std::vector<const KindOfTorture*> kinds;
  std::istringstream names(list);
  for (std::string name; std::getline(names, name, ',');) {
    const auto kind = std::ranges::find(kKinds, name, &KindOfTorture::name);
    if (kind == kKinds.end()) throw po::error("there is no kind '" + name + "'");
    kinds.push_back(kind);
  }
  if (kinds.empty()) throw po::error("--kinds names no kind");
  return kinds;
}

bool parse(int argc, char** argv, Flags& flags) {
  po::options_description options(
      "torture: breaks the durable store in every way it may be broken");
  // clang-format off
  options.add_options()
      ("help,h", "this text")
      ("cycles", po::value(&flags.cycles)->default_value(flags.cycles), "cycles of all kinds together")
      ("seed", po::value(&flags.seed)->default_value(flags.seed), "decides everything but the time")
      ("kinds", po::value(&flags.kinds)->default_value(flags.kinds), "which, separated by commas")
      ("mutants", po::bool_switch(&flags.mutants), "also break promises of the disk: each must be caught")
      ("jobs", po::value(&flags.jobs)->default_value(flags.jobs), "processes at once")
      ("json", po::value(&flags.json), "file for the result")
      ("folder", po::value(&flags.folder), "where stores are made (default: the folder for temporary files)")
      ("session", po::value(&flags.session), "repeat the one session with this seed, of one kind")
      ("mutant", po::value(&flags.mutant), "break this promise in that session");
  // clang-format on
  po::variables_map values;
  po::store(po::parse_command_line(argc, argv, options), values);
  po::notify(values);
  if (values.contains("help")) {
    std::cout << options;
    return false;
  }
  if (flags.cycles == 0 || flags.jobs == 0) throw po::error("--cycles and --jobs are 1 or more");
  return true;
}

// Shares `cycles` out by the kinds' weights; every kind gets one at least.
std::uint64_t cycles_of(const KindOfTorture& kind, const std::vector<const KindOfTorture*>& kinds,
                        std::uint64_t cycles) {
  std::uint64_t total = 0;
  for (const KindOfTorture* one : kinds) total += one->share;
  if (&kind == kinds.back()) {
    std::uint64_t rest = cycles;
    for (const KindOfTorture* one : kinds) {
      if (one != &kind) rest -= std::min(rest, cycles_of(*one, kinds, cycles));
    }
    return std::max<std::uint64_t>(rest, 1);
  }
  return std::max<std::uint64_t>(cycles * kind.share / total, 1);
}

void run_mutants(Runner& runner, const KindOfTorture& kind, std::uint64_t seed,
                 KindReport& report) {
  for (const MutantName& entry : kMutants) {
    if ((kind.mutants & bit(entry.mutant)) == 0) continue;
    const std::string name(entry.name);
    KindReport trial;
    runner.run(kind, kMutantCycles, seed, entry.mutant, trial);
    report.mutants.push_back(name);
    if (trial.failures.empty()) {
      std::printf("%s: mutant %s was not caught in %llu cycles\n", report.kind.c_str(),
                  name.c_str(), static_cast<unsigned long long>(trial.cycles));
      continue;
    }
    report.mutants_caught.push_back(name);
    report.cycles_until_caught[name] = trial.cycles;
    std::printf("%s: mutant %s caught: %s\n", report.kind.c_str(), name.c_str(),
                trial.failures[0].what.c_str());
  }
}

void print_details(const KindReport& report, std::uint64_t cycles_per_session) {
  for (const Failure& failure : report.failures) {
    std::printf("LOST: %s, cycle %llu: %s\n  again: --kinds %s --cycles %llu --session %llu\n",
                report.kind.c_str(), static_cast<unsigned long long>(failure.cycle),
                failure.what.c_str(), report.kind.c_str(),
                static_cast<unsigned long long>(cycles_per_session),
                static_cast<unsigned long long>(failure.seed));
  }
  for (const auto& [what, times] : report.counts) {
    std::printf("  %-8s %-36s %8llu\n", report.kind.c_str(), what.c_str(),
                static_cast<unsigned long long>(times));
  }
}

void print_row(const std::string& kind, std::size_t cycles, std::size_t lost, std::size_t mutants,
               std::size_t caught) {
  std::printf("%-8s %8zu %6zu %8zu %15zu\n", kind.c_str(), cycles, lost, mutants, caught);
}

json::object to_json(const KindReport& report) {
  json::object counts;
  for (const auto& [what, times] : report.counts) counts[what] = times;
  json::object until;
  for (const auto& [name, cycles] : report.cycles_until_caught) until[name] = cycles;
  return {{"kind", report.kind},
          {"cycles", report.cycles},
          {"lost", report.failures.size()},
          {"mutants", report.mutants.size()},
          {"mutants_caught", report.mutants_caught.size()},
          {"cycles_until_caught", until},
          {"counts", counts}};
}

int run(const Flags& flags) {
  const std::vector<const KindOfTorture*> kinds = kinds_of(flags.kinds);
  const Mutant mutant = mutant_of(flags.mutant);
  if (flags.session != 0 && kinds.size() != 1) throw po::error("--session needs one kind");
  std::string folder = (flags.folder.empty() ? std::filesystem::temp_directory_path()
                                             : std::filesystem::path(flags.folder)) /
                       "perennial-torture.XXXXXX";
  require(::mkdtemp(folder.data()) != nullptr, folder + " could not be made");
  std::vector<KindReport> reports;
  {
    Runner runner(folder, flags.jobs);
    for (const KindOfTorture* kind : kinds) {
      const auto begin = std::chrono::steady_clock::now();
      KindReport report;
      report.kind = kind->name;
      const std::uint64_t cycles = cycles_of(*kind, kinds, flags.cycles);
      if (flags.session != 0) {
        runner.run_one(*kind, cycles, flags.session, mutant, report);
      } else {
        runner.run(*kind, cycles, derive(flags.seed, kind->share), mutant, report);
      }
      if (flags.mutants) run_mutants(runner, *kind, derive(flags.seed, 1000), report);
      print_details(report, std::min(cycles, kind->cycles_per_store));
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
      std::printf("  %-8s %.1f s\n", report.kind.c_str(), took.count());
      std::fflush(stdout);
      reports.push_back(std::move(report));
    }
  }
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);

  std::size_t cycles = 0;
  std::size_t lost = 0;
  std::size_t mutants = 0;
  std::size_t caught = 0;
  json::array rows;
  std::printf("\n%-8s %8s %6s %8s %15s\n", "kind", "cycles", "lost", "mutants", "mutants_caught");
  for (const KindReport& report : reports) {
    cycles += report.cycles;
    lost += report.failures.size();
    mutants += report.mutants.size();
    caught += report.mutants_caught.size();
    rows.push_back(to_json(report));
    print_row(report.kind, report.cycles, report.failures.size(), report.mutants.size(),
              report.mutants_caught.size());
  }
  print_row("all", cycles, lost, mutants, caught);
  if (!flags.json.empty()) {
    std::ofstream file(flags.json);
    file << json::serialize(json::object{{"cycles", cycles},
                                         {"lost", lost},
                                         {"mutants", mutants},
                                         {"mutants_caught", caught},
                                         {"seed", flags.seed},
                                         {"kinds", rows}})
         << '\n';
    require(file.flush().good(), flags.json + " could not be written");
  }
  return lost == 0 && caught == mutants ? 0 : 1;
}

}  // namespace
}  // namespace perennial::storage::testing

int main(int argc, char** argv) {
  using namespace perennial::storage::testing;  // NOLINT
  try {
    if (argc > 1 && std::string_view(argv[1]) == "writer") return run_writer(argc, argv);
    Flags flags;
    if (!parse(argc, argv, flags)) return 0;
    return run(flags);
  } catch (const boost::program_options::error& error) {
    std::cerr << "torture: " << error.what() << '\n';
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "torture: " << error.what() << '\n';
    return 1;
  }
}
