// SPDX-License-Identifier: Apache-2.0
// Memories of examples: which to keep, how to hold them in few bytes, and drawing from them.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "data/random_lanes.h"
#include "perennial/continual/strategy.h"
#include "perennial/kernels/philox.h"

namespace perennial::continual {

// D features, C outputs of a model, n rows of a call.

// Which examples a replay memory of M keeps.
//   reservoir: a uniform sample of all seen (Vitter 1985, algorithm R);
//   class_balanced: class-balancing reservoir (Chrysakis & Moens 2020, algorithm 1);
//   ring: the newest floor(M / classes) of each class;
//   greedy: as many of each class as possible, evicting from the largest (GDumb, algorithm 1).
enum class BufferKind : std::uint8_t { reservoir, class_balanced, ring, greedy };
EnumNames<BufferKind> enum_names(BufferKind);

// When a replay memory is filled.
//   stream: with each step's examples, in the first pass over them; knows no boundaries. While an
//     experience is trained, its own examples take more and more of the memory's places.
//   experience: after each experience, with all of its examples and, for der and der++, the logits
//     that the trained model gives them; earlier experiences have the whole memory while one is
//     trained (what Avalanche does).
enum class FillKind : std::uint8_t { stream, experience };
EnumNames<FillKind> enum_names(FillKind);

// A stream of random numbers whose position is state.
class StateRandom {
 public:
  StateRandom(std::int64_t seed, LaneUse use, std::int64_t lane = 0)
      : seed_(static_cast<std::uint64_t>(seed)),
        lane_(random_lane(use, lane)),
        stream_(seed_, lane_) {}

  // Uniform in [0, bound), bound >= 1.
  std::int64_t below(std::int64_t bound);
  // Uniform in (0, 1).
  double uniform() { return (static_cast<double>(stream_.next()) + 0.5) / 4294967296.0; }
  // `count` of 0 .. size - 1 without repetition, all of them when there are fewer (Floyd's
  // algorithm). Their order is not random.
  std::vector<std::int64_t> sample(std::int64_t size, std::int64_t count);
  void visit(StateVisitor& visitor, const std::string& name);

 private:
  std::uint64_t seed_;
  std::uint64_t lane_;
  kernels::RandomStream stream_;
};

// State that is a vector of numbers of a known length. Throws DataError for another length.
void visit_numbers(StateVisitor& visitor, const std::string& name,
                   std::vector<std::int64_t>& numbers);

struct Examples {
  torch::Tensor x;        // (n, D) float32, preprocessed
  torch::Tensor y;        // their targets, as in Batch
  torch::Tensor outputs;  // (n, C) float32 that a model gave, or undefined
};

// Slots for examples. Rows that the preprocessing made of bytes are kept as bytes; as soon as one
// is not, all are kept as float32. Either way they come back with the bits they had.
class ExampleSlots {
 public:
  explicit ExampleSlots(std::int64_t capacity) : capacity_(capacity) {}

  std::int64_t capacity() const { return capacity_; }
  // Puts row `rows[i].second` of the examples into slot `rows[i].first`; where a slot comes twice,
  // the last one stays.
  void put(const std::vector<std::pair<std::int64_t, std::int64_t>>& rows, const Examples& from,
           const Preprocessing& preprocessing);
  Examples take(const std::vector<std::int64_t>& slots, const Preprocessing& preprocessing) const;
  // The class of the example in a slot; 0 where targets are no classes.
  std::int64_t label(std::int64_t slot) const;
  // Bytes that the slots take.
  std::int64_t bytes() const;
  void visit(StateVisitor& visitor, const std::string& name);

 private:
  std::int64_t capacity_;
  torch::Tensor x_;        // (capacity, D) uint8 or float32
  torch::Tensor y_;        // (capacity, ...) of the targets' type
  torch::Tensor outputs_;  // (capacity, C) or undefined
};

// A replay memory of at most M examples; see BufferKind. Without classes (0 of them) all examples
// are as those of one. Cost of add: O(n D) for what is kept, and O(M) an example that evicts one of
// its class; of sample: O(count D) and a look at M numbers. Neither depends on how many examples
// were seen.
class ReplayBuffer {
 public:
  // Throws InvalidOptions for a ring of less than one example a class.
  ReplayBuffer(BufferKind kind, std::int64_t capacity, std::int64_t classes, std::int64_t seed);

  // `origin`: the experience that the examples come from, 0 or more.
  void add(const Examples& examples, const Preprocessing& preprocessing, std::int64_t origin = 0);
  // At most `count` of the examples held, without repetition: of those that come from before
  // experience `before` where there are any, else of all.
  Examples sample(std::int64_t count, const Preprocessing& preprocessing, std::int64_t before = 0);
  // All examples held, in slot order.
  Examples all(const Preprocessing& preprocessing) const;

  // Makes room for the counts of more classes. False for a ring, whose slots are shared out.
  bool add_classes(std::int64_t classes);

  std::int64_t capacity() const { return slots_.capacity(); }
  std::int64_t size() const;
  std::int64_t seen() const { return seen_; }
  std::int64_t bytes() const { return slots_.bytes(); }
  void visit(StateVisitor& visitor, const std::string& name);

 private:
  // The slot that example number seen_ of this label goes to; -1 = it is not kept.
  std::int64_t place(std::int64_t label);
  std::int64_t place_reservoir();
  std::int64_t place_class_balanced(std::size_t label);
  std::int64_t place_greedy(std::size_t label);
  // A slot of the class by chance.
  std::int64_t any_of(std::size_t label);
  std::size_t largest_class() const;
  std::int64_t slot_of(std::int64_t filled) const;

  BufferKind kind_;
  std::int64_t quota_ = 0;  // ring: slots a class
  ExampleSlots slots_;
  StateRandom placing_;
  StateRandom drawing_;
  std::int64_t seen_ = 0;
  std::int64_t size_ = 0;
  std::vector<std::int64_t> class_seen_;  // (C) examples seen
  std::vector<std::int64_t> class_held_;  // (C) examples held
  std::vector<std::int64_t> class_full_;  // (C) 1 once the class was the largest of a full memory
  std::vector<std::int64_t> labels_;      // (M) of each slot, -1 where it is empty
  std::vector<std::int64_t> origins_;     // (M) of each slot, -1 where it is empty
};

}  // namespace perennial::continual
