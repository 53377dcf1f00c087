// SPDX-License-Identifier: Apache-2.0
// Names, meanings and checks of what makes a stream.
#include "perennial/continual/stream_options.h"

#include "data/encoding.h"
#include "perennial/core/error.h"

namespace perennial::continual {

EnumNames<BadRows> enum_names(BadRows) {
  return {{BadRows::refuse, "refuse"}, {BadRows::skip, "skip"}};
}
EnumNames<MissingValues> enum_names(MissingValues) {
  return {{MissingValues::bad, "bad"}, {MissingValues::mean, "mean"}};
}
EnumNames<HeaderChoice> enum_names(HeaderChoice) {
  return {
      {HeaderChoice::automatic, "automatic"}, {HeaderChoice::yes, "yes"}, {HeaderChoice::no, "no"}};
}
EnumNames<Separator> enum_names(Separator) {
  return {{Separator::automatic, "automatic"},
          {Separator::semicolon, "semicolon"},
          {Separator::comma, "comma"},
          {Separator::tab, "tab"},
          {Separator::pipe, "pipe"}};
}
EnumNames<Scenario> enum_names(Scenario) {
  return {{Scenario::automatic, "automatic"},
          {Scenario::task_incremental, "task"},
          {Scenario::domain_incremental, "domain"},
          {Scenario::class_incremental, "class"}};
}
EnumNames<Normalization> enum_names(Normalization) {
  return {{Normalization::automatic, "automatic"},
          {Normalization::global, "global"},
          {Normalization::feature, "feature"},
          {Normalization::none, "none"}};
}
EnumNames<StreamKind> enum_names(StreamKind) {
  return {{StreamKind::permuted, "permuted"},
          {StreamKind::split, "split"},
          {StreamKind::single, "single"},
          {StreamKind::rotated, "rotated"}};
}

std::string_view describe(StreamKind kind) {
  switch (kind) {
    case StreamKind::permuted:
      return "all examples in every experience: first as they are, then with the pixels in another "
             "order each time";
    case StreamKind::split:
      return "the classes in turn, as many in every experience; labels keep their numbers, unless "
             "--scenario says otherwise";
    case StreamKind::single:
      return "the whole data set as one experience";
    case StreamKind::rotated:
      return "all images in every experience: first as they are, then turned by equal angles, 180 "
             "degrees in all; with --gradual without boundaries";
  }
  return "";
}

Scenario StreamOptions::resolved_scenario() const {
  if (scenario != Scenario::automatic) return scenario;
  return stream == StreamKind::split ? Scenario::class_incremental : Scenario::domain_incremental;
}

double StreamOptions::angle_of(std::int64_t experience) const {
  if (stream != StreamKind::rotated) return 0;
  const auto e = static_cast<double>(first_alike(experience));
  return angle_step != 0 ? e * angle_step
                         : e * 180 / static_cast<double>(cycle > 0 ? cycle : experiences);
}

void StreamOptions::validate() const {
  validate_ranges(*this);
  if (dataset.empty())
    throw InvalidOptions("dataset is empty; a name, a folder or a file is meant");
  const Decoder decoder(table.encoding);  // knows which there are
  const auto needs = [&](bool given, const char* option, const char* kinds, bool has) {
    if (!given || has) return;
    throw InvalidOptions(std::string(option) + " needs stream " + kinds + ", not " +
                         std::string(enum_name(stream)));
  };
  if (table.task == TaskKind::regression) {
    const auto refuse = [](bool asked, const std::string& what) {
      if (asked) throw InvalidOptions(what + " needs classes, and task regression has none");
    };
    refuse(stream == StreamKind::split, "stream split deals out classes: it");
    refuse(resolved_scenario() != Scenario::domain_incremental,
           "scenario " + std::string(enum_name(scenario)));
    refuse(!table.label_column.empty(), "label_column");
  } else if (!table.target_column.empty()) {
    throw InvalidOptions("target_column needs task regression; a classification has label_column");
  }
  const bool rotated = stream == StreamKind::rotated;
  needs(class_order != StreamOptions().class_order, "class_order", "split",
        stream == StreamKind::split);
  needs(angle_step != 0, "angle_step", "rotated", rotated);
  needs(gradual, "gradual", "rotated", rotated);
  needs(cycle > 0, "cycle", "permuted or rotated", rotated || stream == StreamKind::permuted);
  if (cycle > 0 && gradual) {
    throw InvalidOptions("cycle needs boundaries, and gradual has none");
  }
  if (cycle > 0 && resolved_scenario() != Scenario::domain_incremental) {
    throw InvalidOptions("cycle needs scenario domain: what returns keeps its labels");
  }
  needs(blur > 0, "blur", "permuted, split or rotated", stream != StreamKind::single);
  needs(scenario == Scenario::task_incremental || scenario == Scenario::domain_incremental,
        "scenario", "permuted, split or rotated", stream != StreamKind::single);
}

}  // namespace perennial::continual
