// SPDX-License-Identifier: Apache-2.0
// Streams: a data set turned into a sequence of experiences, deterministic by seed.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "perennial/continual/dataset.h"
#include "perennial/continual/stream_options.h"
#include "perennial/continual/task.h"
#include "perennial/storage/digest.h"

namespace perennial::continual {

// What a store knows already, for a stream of further data.
struct LearntBefore {
  std::vector<std::string> label_names;  // keep their numbers; new ones come after them
  Preprocessing preprocessing;           // applied as it is
  // Test sets of the experiences so far, as they were read (x, y): they come first among the
  // stream's, whose further data are then its last experience. Only for stream single.
  std::vector<Dataset> tests = {};
  Preprocessing targets = {};  // of a regression, applied as they are
};

// T experiences over one data set, numbered from 0. Examples are shared; permutations and rotations
// are applied to batches, so the memory is that of the data set plus 4 bytes an example of a
// subset, 4 bytes a feature and permutation and 32 bytes a pixel and angle. Immutable; thread-safe.
// Copies share everything.
//  - permuted: experience 0 is the data as they are, every later one applies a pixel permutation of
//    its own, drawn from stream_seed;
//  - split: classes in ascending order, or in class_order, which also numbers them, classes /
//    experiences of them each (must divide evenly);
//  - single: the whole data set once; experiences is taken as 1;
//  - rotated: images, experience e turned by e * angle_step degrees counter-clockwise about their
//    centre: bilinear, zero outside, to 1/256 of a pixel, the same bits on every machine. With
//    `gradual` the angle of a training example grows with its place in the pass, from half a step
//    before its experience's to half a step after it, in 64 steps; test sets have the angles
//    themselves.
// With a cycle, experience e of a permuted or rotated stream has the distribution of e modulo it.
// With a validation_share, that share of each class's training examples is taken from the training
// part before anything else, and is the test part; the data's own test part is not there.
// With a limit, an experience has a random subset of its own examples, drawn from stream_seed and
// kept in ascending order. Asking for more examples than there are is an error.
//
// Blurred boundaries: the last examples of a pass and the first ones of the same pass over the next
// experience change places by chance (drawn from stream_seed): k = blur / 2 of the smaller of the
// two, the i-th from the boundary (from 0) with probability (1 - i / k) / 2. So the share of the
// next experience rises linearly to one half, and every example is still seen once a pass.
class Stream {
 public:
  // Loads the data. Throws DataError, InvalidOptions.
  explicit Stream(const StreamOptions& options);
  // For tests and for callers that have the data.
  Stream(const StreamOptions& options, TrainTest data);
  // Further data for what was learnt before: its preprocessing, its labels' numbers, and new labels
  // after them. `data` as loaded by load_dataset with before.label_names. Throws DataError when the
  // features differ.
  Stream(const StreamOptions& options, TrainTest data, const LearntBefore& before);
  // The test sets of `before` alone, without anything to learn; `digest` stands for the data.
  static Stream of_tests(const StreamOptions& options, LearntBefore before,
                         const storage::Digest& digest);

  // As given, except that `experiences` of a single stream is 1, or counts what came before.
  const StreamOptions& options() const { return options_; }
  // Experiences that were learnt before: test sets without training examples.
  std::int64_t earlier() const { return earlier_; }
  // As read: the training examples, and test set `experience`.
  const Dataset& train_rows() const;
  Dataset test_rows(std::int64_t experience) const;
  // Experiences to learn: T, or 1 of a joint stream.
  std::int64_t experiences() const { return static_cast<std::int64_t>(train_.size()); }
  // Test sets: T, also of a joint stream.
  std::int64_t test_sets() const { return static_cast<std::int64_t>(test_.size()); }
  std::int64_t features() const;
  // Classes there are, none of a regression: C of the data; C / T for split, domain-incremental; T
  // * C for permuted and rotated, class- or task-incremental.
  std::int64_t classes() const { return static_cast<std::int64_t>(label_names_.size()); }
  const std::vector<std::string>& label_names() const { return label_names_; }
  // What a user should know of the data, a line each: rows that were skipped, parts split off.
  const std::vector<std::string>& notes() const;
  // Of an example; rows and columns are 0 when examples are not images.
  std::int64_t image_rows() const;
  std::int64_t image_cols() const;
  std::int64_t image_channels() const;
  // Fit on the training features of experience 0.
  const Preprocessing& preprocessing() const { return preprocessing_; }
  // Of a regression: a name, mean and deviation for each target, fit on the training part of
  // experience 0. Else empty.
  const Preprocessing& targets() const { return targets_; }
  // XXH3-128 of the whole data set, its labels and its dimensions, wherever it was read from.
  const storage::Digest& data_digest() const { return data_digest_; }

  std::int64_t train_size(std::int64_t experience) const;
  std::int64_t test_size(std::int64_t experience) const;
  // Classes of test set `experience`, ascending; its training examples have the same ones.
  std::vector<std::int64_t> classes_of(std::int64_t experience) const;

  // What is learnt of it. Lives as long as the stream or a copy of it.
  const Task& task() const { return *task_; }
  // True when the experience of an example is known at test (task-incremental): answers, and the
  // loss, are then restricted to its classes.
  bool tasks_known() const { return options_.resolved_scenario() == Scenario::task_incremental; }

  // Batch `step` (from 0) of pass `epoch` over the experience's training examples, in the order
  // that (seed, experience, epoch) shuffles them to; the last batch of a pass may be smaller. A
  // function of its arguments only: the stream's position is (experience, epoch, step), nothing
  // else. The bits do not depend on the thread count. Cost: a microsecond or two a row of 784
  // bytes; the first batch of an epoch also shuffles (the orders of the last three epochs asked for
  // are kept). Throws Error when an argument is out of range.
  Batch train_batch(std::int64_t experience, std::int64_t epoch, std::int64_t step,
                    std::int64_t batch_size, std::int64_t seed) const;
  std::int64_t steps_per_epoch(std::int64_t experience, std::int64_t batch_size) const;
  // Test examples [begin, end) in their order. Throws Error when they are not there.
  Batch test_batch(std::int64_t experience, std::int64_t begin, std::int64_t end) const;

  // The stream whose single training experience is the union of all of this one's, with this one's
  // test sets and preprocessing: what `joint` learns from. Each example keeps its own permutation
  // or its experience's angle; with `gradual` one of the experience's angles, another in every
  // pass, drawn from stream_seed.
  Stream joint() const;
  // The stream whose training experience e is the union of this one's up to e: what `cumulative`
  // learns from. Test sets and preprocessing are this one's.
  Stream cumulative() const;

 private:
  using Indices = std::shared_ptr<const std::vector<std::uint32_t>>;
  // Examples that share a permutation.
  struct Segment {
    Indices examples;         // indices into the data set
    std::int64_t source = 0;  // the experience whose permutation they get
    std::int64_t begin = 0;   // position of the first one in the part
  };
  // One experience's share of the data: one segment, or one an experience when joint.
  struct Part {
    std::vector<Segment> segments;
    std::int64_t size = 0;
    void append(Segment segment);
  };
  // One row of a batch: which example, as which experience shows it.
  struct Pick {
    std::int64_t example = 0;
    std::int64_t source = 0;
    std::int64_t level = -1;  // of a gradual rotation; -1 = the experience's own angle
  };
  struct OrderCache;
  class Transforms;

  Stream(const StreamOptions& options, TrainTest data, const LearntBefore* before);
  void prepend(const std::vector<Dataset>& tests);
  void build_parts();
  void build_labels();
  void fit_preprocessing();
  const Part& part(const std::vector<Part>& parts, std::int64_t experience) const;
  Indices epoch_order(std::int64_t experience, std::int64_t epoch, std::int64_t seed) const;
  static Pick pick(const Part& part, std::int64_t position);
  // Examples on either side of the boundary after `experience` that may change places.
  std::int64_t blurred(std::int64_t experience) const;
  // Of the example at `place` of a pass over `experience`: where it is taken from, as (experience,
  // place) there.
  std::pair<std::int64_t, std::int64_t> unblurred(std::int64_t experience, std::int64_t epoch,
                                                  std::int64_t place) const;
  // Of a gradual rotation in a joint pass: each example's own in each pass.
  std::int64_t joint_level(const Pick& pick, std::int64_t epoch) const;
  Batch gather(const Dataset& data, const std::vector<Pick>& picks) const;
  torch::Tensor targets_of(const Dataset& data, const std::vector<Pick>& picks) const;

  StreamOptions options_;
  std::shared_ptr<const TrainTest> data_;
  Preprocessing preprocessing_, targets_;
  storage::Digest data_digest_;
  std::vector<std::string> label_names_;
  std::vector<std::int64_t> label_shift_;  // (T): added to the labels of an experience
  std::shared_ptr<const Task> task_;
  std::shared_ptr<const Transforms> transforms_;
  std::vector<Part> train_;
  std::vector<Part> test_;
  bool joint_ = false;
  std::int64_t earlier_ = 0;
  std::shared_ptr<OrderCache> orders_;
};

}  // namespace perennial::continual
