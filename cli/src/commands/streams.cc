// SPDX-License-Identifier: Apache-2.0
// perennial streams: the kinds of streams there are, and what they can be made of.
#include <boost/json/array.hpp>
#include <cstddef>
#include <ostream>

#include "commands/commands.h"
#include "flags.h"
#include "output.h"
#include "perennial/continual/stream.h"

namespace perennial::cli {
namespace {

struct Entry {
  const char* name;
  const char* meaning;
};

constexpr Entry kScenarios[] = {
    {"class", "every experience has classes of its own, and answers are of all of them"},
    {"domain", "the same labels in every experience: of split, a class's place in its experience"},
    {"task", "as class, but at test the experience is known: answers are of its classes only"},
};

constexpr Entry kDatasets[] = {
    {"fashion-mnist", "of the package dataset-fashion-mnist, or of $PERENNIAL_DATA"},
    {"NAME", "the folder of this name in $PERENNIAL_DATA"},
    {"FOLDER", "IDX: train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-..."},
    {"FOLDER",
     "CIFAR-10: data_batch_1.bin to data_batch_5.bin, test_batch.bin; CIFAR-100: train.bin, "
     "test.bin"},
    {"FOLDER", "NPY: x_train.npy, y_train.npy, x_test.npy, y_test.npy; or x.npy, y.npy"},
    {"FOLDER",
     "a table: train.csv or train.jsonl; test.csv or test.jsonl where there is a test part"},
    {"FOLDER",
     "images (PNG, JPEG, PGM, PPM) in a folder for each class; or such folders in train and test"},
    {"FILE", "a table: CSV, or JSONL (by its name or its first byte)"},
};

template <std::size_t n>
boost::json::array print_entries(std::ostream& out, const char* title, const Entry (&entries)[n]) {
  Table table({{title, Align::left}, {"meaning", Align::left}});
  boost::json::array array;
  for (const Entry& entry : entries) {
    table.add_row({entry.name, entry.meaning});
    array.push_back({{"name", entry.name}, {"meaning", entry.meaning}});
  }
  out << '\n';
  table.print(out);
  return array;
}

int run_streams(const std::vector<std::string>& args) {
  CommonOptions common;
  Flags flags("streams", kStreamsCommand.summary, "perennial streams --json");
  common.add_to(flags);
  if (!flags.parse(args)) return kExitOk;

  const Output output(common.json, common.quiet);
  Table table({{"stream", Align::left}, {"meaning", Align::left}});
  boost::json::array streams;
  for (const auto& [kind, name] : enum_names(continual::StreamKind{})) {
    const std::string meaning(continual::describe(kind));
    table.add_row({std::string(name), meaning});
    streams.push_back({{"name", name}, {"meaning", meaning}});
  }
  table.print(output.text());
  boost::json::array scenarios = print_entries(output.text(), "scenario", kScenarios);
  boost::json::array datasets = print_entries(output.text(), "data set", kDatasets);
  output.finish({{"streams", std::move(streams)},
                 {"scenarios", std::move(scenarios)},
                 {"datasets", std::move(datasets)}});
  return kExitOk;
}

}  // namespace

const Command kStreamsCommand{
    "streams", CommandGroup::information,
    "list the kinds of streams, the scenarios and the data sets that can be read", run_streams};

}  // namespace perennial::cli
