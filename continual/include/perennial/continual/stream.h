// SPDX-License-Identifier: Apache-2.0
// Streams: a data set turned into a sequence of experiences, deterministic by seed.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "perennial/continual/dataset.h"
#include "perennial/core/options.h"
#include "perennial/storage/digest.h"

namespace perennial::continual {

enum class StreamKind { permuted, split, single };
EnumNames<StreamKind> enum_names(StreamKind);
// What a kind is, in one sentence.
std::string_view describe(StreamKind kind);

struct StreamOptions {
  StreamKind stream = StreamKind::permuted;
  std::string dataset = "fashion-mnist";
  std::int64_t experiences = 5;
  std::int64_t limit = 0;
  std::int64_t test_limit = 0;
  std::int64_t stream_seed = 1;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor& visitor) {
    visitor("stream", self.stream,
            "permuted (the data, then pixel permutations of it), split (classes in turn) or single "
            "(one experience)");
    visitor("dataset", self.dataset,
            "fashion-mnist, or a folder with the four IDX files of a data set like MNIST");
    visitor("experiences", self.experiences, "length of the stream; single has one",
            Range{1, 10000});
    visitor("limit", self.limit, "training examples an experience, 0 = all", Range{0, 1e9});
    visitor("test_limit", self.test_limit, "test examples an experience, 0 = all", Range{0, 1e9});
    visitor("stream_seed", self.stream_seed, "seed of the permutations and of the subsets",
            Range{0, 9e15});
  }
  // Throws InvalidOptions. What depends on the data (classes that do not divide, limits larger than
  // the data) is checked by Stream's constructor.
  void validate() const;
};

struct Batch {
  torch::Tensor x;  // (B, D) float32, preprocessed
  torch::Tensor y;  // (B) int64
};

// T experiences over one data set, numbered from 0. Examples are shared and permutations are
// applied to batches, so the memory is that of the data set plus 4 bytes an example of a subset.
// Immutable; thread-safe. Copies share everything.
//  - permuted: experience 0 is the data as they are, every later one applies a pixel permutation of
//    its own, drawn from stream_seed;
//  - split: classes in ascending order, classes / experiences of them each (must divide evenly);
//    labels keep their numbers (class-incremental);
//  - single: the whole data set once; experiences is taken as 1.
// With a limit, an experience has a random subset of its own examples, drawn from stream_seed and
// kept in ascending order. Asking for more examples than there are is an error.
class Stream {
 public:
  // Loads the data. Throws DataError, InvalidOptions.
  explicit Stream(const StreamOptions& options);
  // For tests and for callers that have the data.
  Stream(const StreamOptions& options, TrainTest data);

  // As given, except that `experiences` of a single stream is 1.
  const StreamOptions& options() const { return options_; }
  // Experiences to learn: T, or 1 of a joint stream.
  std::int64_t experiences() const { return static_cast<std::int64_t>(train_.size()); }
  // Test sets: T, also of a joint stream.
  std::int64_t test_sets() const { return static_cast<std::int64_t>(test_.size()); }
  std::int64_t features() const;
  std::int64_t classes() const;
  // Of an example; rows and columns are 0 when examples are not images.
  std::int64_t image_rows() const;
  std::int64_t image_cols() const;
  const std::vector<std::string>& label_names() const;
  // Fit on the training pixels of experience 0.
  const Preprocessing& preprocessing() const { return preprocessing_; }
  // XXH3-128 of the whole data set, its labels and its dimensions, wherever it was read from.
  const storage::Digest& data_digest() const { return data_digest_; }

  std::int64_t train_size(std::int64_t experience) const;
  std::int64_t test_size(std::int64_t experience) const;
  // Classes of test set `experience`, ascending; its training examples have the same ones.
  std::vector<std::int64_t> classes_of(std::int64_t experience) const;

  // Batch `step` (from 0) of pass `epoch` over the experience's training examples, in the order
  // that (seed, experience, epoch) shuffles them to; the last batch of a pass may be smaller. A
  // function of its arguments only: the stream's position is (experience, epoch, step), nothing
  // else. The bits do not depend on the thread count. Cost: a microsecond or two a row of 784
  // bytes; the first batch of an epoch also shuffles (the order of the last epoch asked for is
  // kept). Throws Error when an argument is out of range.
  Batch train_batch(std::int64_t experience, std::int64_t epoch, std::int64_t step,
                    std::int64_t batch_size, std::int64_t seed) const;
  std::int64_t steps_per_epoch(std::int64_t experience, std::int64_t batch_size) const;
  // Test examples [begin, end) in their order. Throws Error when they are not there.
  Batch test_batch(std::int64_t experience, std::int64_t begin, std::int64_t end) const;

  // The stream whose single training experience is the union of all of this one's, with this one's
  // test sets and preprocessing: what `joint` learns from. Each example keeps its own permutation.
  Stream joint() const;

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
  struct OrderCache;

  void build_parts();
  const Part& part(const std::vector<Part>& parts, std::int64_t experience) const;
  Indices epoch_order(std::int64_t experience, std::int64_t epoch, std::int64_t seed) const;
  // Examples at `positions` of the part, or at first, first + 1, ... without positions.
  Batch gather(const Dataset& data, const Part& part, const std::uint32_t* positions,
               std::int64_t first, std::int64_t count) const;

  StreamOptions options_;
  std::shared_ptr<const TrainTest> data_;
  Preprocessing preprocessing_;
  storage::Digest data_digest_;
  std::vector<std::vector<std::uint32_t>> permutations_;  // (D) each; empty unless permuted
  std::vector<Part> train_;
  std::vector<Part> test_;
  std::shared_ptr<OrderCache> orders_;
};

}  // namespace perennial::continual
