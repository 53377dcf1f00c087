// SPDX-License-Identifier: Apache-2.0
// What makes a stream of a data set.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "perennial/continual/table_options.h"
#include "perennial/core/options.h"

namespace perennial::continual {

enum class StreamKind { permuted, split, single, rotated };
EnumNames<StreamKind> enum_names(StreamKind);
// What a kind is, in one sentence.
std::string_view describe(StreamKind kind);

// What the labels of an experience are, and what is known at test (van de Ven & Tolias, arXiv
// 1904.07734; Hsu et al., 1810.12488).
//  - class_incremental: every experience brings classes of its own, and the model answers with one
//    of all of them. Split: labels keep their numbers. Permuted and rotated: class c of experience
//    e is class e * C + c.
//  - domain_incremental: all experiences have the same labels. Split: a class's label is its place
//    among those of its experience. Permuted and rotated: labels as they are.
//  - task_incremental: labels as in class_incremental, and at test the experience is known: answers
//    are restricted to its classes.
//  - automatic: class_incremental for split, domain_incremental for the others.
enum class Scenario : std::uint8_t {
  automatic,
  task_incremental,
  domain_incremental,
  class_incremental
};
EnumNames<Scenario> enum_names(Scenario);

// How features are normalised: (x - mean) / deviation with one mean and deviation for all of them,
// with those of each feature, or not at all.
enum class Normalization : std::uint8_t { automatic, global, feature, none };
EnumNames<Normalization> enum_names(Normalization);

struct StreamOptions {
  StreamKind stream = StreamKind::permuted;
  std::string dataset = "fashion-mnist";
  std::int64_t experiences = 5;
  Scenario scenario = Scenario::automatic;
  double angle_step = 0;
  bool gradual = false;
  double blur = 0;
  std::int64_t cycle = 0;
  std::int64_t limit = 0;
  std::int64_t test_limit = 0;
  double validation_share = 0;
  std::int64_t stream_seed = 1;
  std::string class_order = "ascending";
  Normalization normalize = Normalization::automatic;
  TableOptions table = {};

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor& visitor) {
    visitor("stream", self.stream,
            "permuted (the data, then pixel permutations of it), split (classes in turn), single "
            "(one experience) or rotated (images, turned further each time)");
    visitor("dataset", self.dataset,
            "fashion-mnist, a folder with a data set (IDX, CIFAR binary, NPY, CSV or JSONL files), "
            "or one CSV or JSONL file");
    visitor("experiences", self.experiences, "length of the stream; single has one",
            Range{1, 10000});
    visitor(
        "scenario", self.scenario,
        "what labels are: of all classes (class-incremental), the same ones in every experience "
        "(domain), or known to be of the experience's classes at test (task); automatic: class "
        "for split, domain for others");
    visitor("angle_step", self.angle_step,
            "rotated: degrees from one experience to the next, counter-clockwise; 0 = 180 / "
            "experiences",
            Range{-360, 360});
    visitor("gradual", self.gradual,
            "rotated: the angle grows all along the training examples, so that there are no "
            "boundaries");
    visitor("blur", self.blur,
            "share of an experience over which it mixes with its neighbours, half of it at each "
            "end; 0 = hard boundaries",
            Range{0, 1});
    visitor("cycle", self.cycle,
            "permuted, rotated: experiences after which their distributions come round again, from "
            "the first on; 0 = never",
            Range{0, 10000});
    visitor("limit", self.limit, "training examples an experience, 0 = all", Range{0, 1e9});
    visitor("test_limit", self.test_limit, "test examples an experience, 0 = all", Range{0, 1e9});
    visitor("validation_share", self.validation_share,
            "this share of each class's training examples, drawn from stream_seed, is held out and "
            "tested on in place of the test part: for choosing settings; 0 = none",
            Range{0, 0.9});
    visitor("stream_seed", self.stream_seed,
            "seed of the permutations, of the subsets, of mixing and of parts that are split off",
            Range{0, 9e15});
    visitor("class_order", self.class_order,
            "split: the order in which classes come: ascending, reversed, random (drawn from "
            "stream_seed), or a list of all of them by name or by number from 0, as 3,1,0,2");
    visitor("normalize", self.normalize,
            "one mean and deviation for all features (global), one for each feature, or none; "
            "automatic: feature for tables, global for others");
    visitor.group("table", self.table);
  }
  // Throws InvalidOptions. What depends on the data (classes that do not divide, limits larger than
  // the data, rotations of what is no image) is checked by Stream's constructor.
  void validate() const;
  // What `automatic` means here.
  Scenario resolved_scenario() const;
  // The experience that first has the distribution of this one.
  std::int64_t first_alike(std::int64_t experience) const {
    return cycle > 0 ? experience % cycle : experience;
  }
  // Degrees by which test set `experience` is turned; 0 unless rotated.
  double angle_of(std::int64_t experience) const;
};

}  // namespace perennial::continual
