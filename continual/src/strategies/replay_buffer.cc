// SPDX-License-Identifier: Apache-2.0
// Replay memories.
#include "strategies/replay_buffer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>
#include <map>

#include "perennial/core/error.h"

namespace perennial::continual {

EnumNames<BufferKind> enum_names(BufferKind) {
  return {{BufferKind::reservoir, "reservoir"},
          {BufferKind::class_balanced, "class_balanced"},
          {BufferKind::ring, "ring"},
          {BufferKind::greedy, "greedy"}};
}

EnumNames<FillKind> enum_names(FillKind) {
  return {{FillKind::stream, "stream"}, {FillKind::experience, "experience"}};
}

namespace {

// The bytes that the preprocessing made these rows of; undefined when there are none.
torch::Tensor as_bytes(const torch::Tensor& x, const Preprocessing& preprocessing) {
  const torch::Tensor values = x.to(at::kDouble)
                                   .mul_(preprocessing.deviation)
                                   .add_(preprocessing.mean)
                                   .round_()
                                   .clamp_(0, 255);
  const torch::Tensor bytes = values.to(at::kByte);
  return at::equal(preprocessing.apply(bytes), x) ? bytes : torch::Tensor();
}

bool has_classes(const torch::Tensor& y) { return y.scalar_type() == at::kLong; }

torch::Tensor index_tensor(const std::vector<std::int64_t>& values) {
  return at::tensor(values, at::kLong);
}

}  // namespace

void visit_numbers(StateVisitor& visitor, const std::string& name,
                   std::vector<std::int64_t>& numbers) {
  torch::Tensor tensor = index_tensor(numbers);
  visitor.tensor(name, tensor);
  if (!tensor.defined() || tensor.scalar_type() != at::kLong ||
      tensor.numel() != std::ssize(numbers)) {
    throw DataError("dense entry 'strategy/" + name + "' is not " + std::to_string(numbers.size()) +
                    " integers");
  }
  std::copy_n(tensor.const_data_ptr<std::int64_t>(), numbers.size(), numbers.begin());
}

std::int64_t StateRandom::below(std::int64_t bound) {
  if (bound <= std::numeric_limits<std::uint32_t>::max()) {
    return stream_.below(static_cast<std::uint32_t>(bound));
  }
  const auto range = static_cast<std::uint64_t>(bound);
  const std::uint64_t limit = std::numeric_limits<std::uint64_t>::max() / range * range;
  while (true) {
    const std::uint64_t low = stream_.next();
    const std::uint64_t word = static_cast<std::uint64_t>(stream_.next()) << 32 | low;
    if (word < limit) return static_cast<std::int64_t>(word % range);
  }
}

std::vector<std::int64_t> StateRandom::sample(std::int64_t size, std::int64_t count) {
  std::vector<std::int64_t> chosen;
  count = std::min(size, count);
  chosen.reserve(static_cast<std::size_t>(count));
  std::vector<bool> taken(static_cast<std::size_t>(size));
  for (std::int64_t last = size - count; last < size; ++last) {
    std::int64_t candidate = below(last + 1);
    if (taken[static_cast<std::size_t>(candidate)]) candidate = last;
    taken[static_cast<std::size_t>(candidate)] = true;
    chosen.push_back(candidate);
  }
  return chosen;
}

void StateRandom::visit(StateVisitor& visitor, const std::string& name) {
  auto position = static_cast<std::int64_t>(stream_.position());
  visitor.integer(name, position);
  stream_ = kernels::RandomStream(seed_, lane_, static_cast<std::uint64_t>(position));
}

void ExampleSlots::put(const std::vector<std::pair<std::int64_t, std::int64_t>>& rows,
                       const Examples& from, const Preprocessing& preprocessing) {
  if (rows.empty()) return;
  const at::NoGradGuard no_grad;
  std::map<std::int64_t, std::int64_t> row_of;
  for (const auto& [slot, row] : rows) row_of[slot] = row;
  std::vector<std::int64_t> slots, sources;
  for (const auto& [slot, row] : row_of) {
    slots.push_back(slot);
    sources.push_back(row);
  }
  const torch::Tensor to = index_tensor(slots), source = index_tensor(sources);
  torch::Tensor x = from.x.detach().index_select(0, source);
  if (!x_.defined() || x_.scalar_type() == at::kByte) {
    const torch::Tensor bytes = as_bytes(x, preprocessing);
    if (bytes.defined()) {
      x = bytes;
    } else if (x_.defined()) {
      x_ = preprocessing.apply(x_);
    }
  }
  if (!x_.defined()) {
    x_ = at::zeros({capacity_, x.size(1)}, x.scalar_type());
    std::vector<std::int64_t> shape = from.y.sizes().vec();
    shape[0] = capacity_;
    y_ = at::zeros(shape, from.y.scalar_type());
  }
  x_.index_copy_(0, to, x);
  y_.index_copy_(0, to, from.y.index_select(0, source));
  if (from.outputs.defined()) {
    if (!outputs_.defined()) outputs_ = at::zeros({capacity_, from.outputs.size(1)});
    outputs_.index_copy_(0, to, from.outputs.detach().index_select(0, source));
  }
}

Examples ExampleSlots::take(const std::vector<std::int64_t>& slots,
                            const Preprocessing& preprocessing) const {
  const torch::Tensor index = index_tensor(slots);
  Examples examples;
  examples.x = x_.index_select(0, index);
  if (examples.x.scalar_type() == at::kByte) examples.x = preprocessing.apply(examples.x);
  examples.y = y_.index_select(0, index);
  if (outputs_.defined()) examples.outputs = outputs_.index_select(0, index);
  return examples;
}

std::int64_t ExampleSlots::label(std::int64_t slot) const {
  return has_classes(y_) ? y_.const_data_ptr<std::int64_t>()[slot] : 0;
}

std::int64_t ExampleSlots::bytes() const {
  std::size_t bytes = 0;
  for (const torch::Tensor* tensor : {&x_, &y_, &outputs_}) {
    if (tensor->defined()) bytes += tensor->nbytes();
  }
  return static_cast<std::int64_t>(bytes);
}

void ExampleSlots::visit(StateVisitor& visitor, const std::string& name) {
  visitor.tensor(name + "/x", x_);
  visitor.tensor(name + "/y", y_);
  visitor.tensor(name + "/logits", outputs_);
  if (x_.defined() &&
      (!y_.defined() || y_.dim() < 1 || x_.size(0) != capacity_ || y_.size(0) != capacity_)) {
    throw DataError("dense entry 'strategy/" + name + "/x' has another shape than its memory");
  }
}

ReplayBuffer::ReplayBuffer(BufferKind kind, std::int64_t capacity, std::int64_t classes,
                           std::int64_t seed)
    : kind_(kind),
      slots_(capacity),
      placing_(seed, LaneUse::replay_place),
      drawing_(seed, LaneUse::replay_draw),
      class_seen_(static_cast<std::size_t>(std::max<std::int64_t>(classes, 1))),
      class_held_(class_seen_.size()),
      class_full_(class_seen_.size()),
      labels_(static_cast<std::size_t>(capacity), -1),
      origins_(static_cast<std::size_t>(capacity), -1) {
  if (kind == BufferKind::ring) {
    quota_ = capacity / std::ssize(class_seen_);
    if (capacity > 0 && quota_ == 0) {
      throw InvalidOptions("memory is " + std::to_string(capacity) +
                           "; buffer ring needs one for " + "each of the " +
                           std::to_string(classes) + " classes");
    }
  }
}

void ReplayBuffer::add(const Examples& examples, const Preprocessing& preprocessing,
                       std::int64_t origin) {
  if (capacity() == 0) return;
  std::vector<std::pair<std::int64_t, std::int64_t>> rows;
  const torch::Tensor targets = examples.y.contiguous();
  const bool classes = has_classes(targets);
  for (std::int64_t row = 0; row < targets.size(0); ++row) {
    const std::int64_t of = classes ? targets.const_data_ptr<std::int64_t>()[row] : 0;
    const std::int64_t slot = place(of);
    const auto label = static_cast<std::size_t>(of);
    ++seen_;
    ++class_seen_[label];
    if (slot < 0) continue;
    std::int64_t& held = labels_[static_cast<std::size_t>(slot)];
    if (held >= 0) {
      --class_held_[static_cast<std::size_t>(held)];
    } else {
      ++size_;
    }
    held = of;
    origins_[static_cast<std::size_t>(slot)] = origin;
    ++class_held_[label];
    rows.emplace_back(slot, row);
  }
  slots_.put(rows, examples, preprocessing);
}

std::int64_t ReplayBuffer::place(std::int64_t label) {
  const auto c = static_cast<std::size_t>(label);
  if (kind_ == BufferKind::ring) return label * quota_ + class_seen_[c] % quota_;
  if (kind_ == BufferKind::greedy) return place_greedy(c);
  if (size_ < capacity()) return size_;
  return kind_ == BufferKind::reservoir ? place_reservoir() : place_class_balanced(c);
}

std::int64_t ReplayBuffer::place_reservoir() {
  const std::int64_t slot = placing_.below(seen_ + 1);
  return slot < capacity() ? slot : -1;
}

// Every class that is as large as the largest is marked full before its examples have to give way.
std::int64_t ReplayBuffer::place_class_balanced(std::size_t label) {
  const std::size_t largest = largest_class();
  for (std::size_t c = 0; c < class_held_.size(); ++c) {
    if (class_held_[c] == class_held_[largest]) class_full_[c] = 1;
  }
  if (class_full_[label] == 0) return any_of(largest);
  // Algorithm R within the class: kept with probability held / seen.
  const std::int64_t draw = placing_.below(class_seen_[label] + 1);
  return draw < class_held_[label] ? any_of(label) : -1;
}

std::int64_t ReplayBuffer::place_greedy(std::size_t label) {
  std::int64_t classes = class_seen_[label] == 0 ? 1 : 0;
  for (const std::int64_t seen : class_seen_) classes += seen > 0 ? 1 : 0;
  const std::int64_t quota = capacity() / classes;
  if (class_held_[label] > 0 && class_held_[label] >= quota) return -1;
  if (size_ < capacity()) return size_;
  return any_of(largest_class());
}

std::int64_t ReplayBuffer::any_of(std::size_t label) {
  std::int64_t left = placing_.below(class_held_[label]);
  for (std::size_t slot = 0; slot < labels_.size(); ++slot) {
    if (labels_[slot] == static_cast<std::int64_t>(label) && left-- == 0) {
      return static_cast<std::int64_t>(slot);
    }
  }
  throw Error("a replay memory lost count of its classes");
}

// The oldest label among equals.
std::size_t ReplayBuffer::largest_class() const {
  return static_cast<std::size_t>(std::max_element(class_held_.begin(), class_held_.end()) -
                                  class_held_.begin());
}

bool ReplayBuffer::add_classes(std::int64_t classes) {
  if (kind_ == BufferKind::ring) return false;
  for (auto* counts : {&class_seen_, &class_held_, &class_full_}) {
    counts->resize(static_cast<std::size_t>(classes));
  }
  return true;
}

std::int64_t ReplayBuffer::size() const { return size_; }

// The slot of the n-th example held. Only a ring has gaps.
std::int64_t ReplayBuffer::slot_of(std::int64_t filled) const {
  if (kind_ != BufferKind::ring) return filled;
  std::int64_t first = 0;
  for (const std::int64_t held : class_held_) {
    if (filled < held) return first + filled;
    filled -= held;
    first += quota_;
  }
  throw Error("a replay memory lost count of its classes");
}

Examples ReplayBuffer::sample(std::int64_t count, const Preprocessing& preprocessing,
                              std::int64_t before) {
  std::vector<std::int64_t> earlier;
  for (std::size_t slot = 0; slot < origins_.size(); ++slot) {
    if (origins_[slot] >= 0 && origins_[slot] < before) {
      earlier.push_back(static_cast<std::int64_t>(slot));
    }
  }
  const std::int64_t size = earlier.empty() ? size_ : std::ssize(earlier);
  std::vector<std::int64_t> slots = drawing_.sample(size, count);
  for (std::int64_t& slot : slots) {
    slot = earlier.empty() ? slot_of(slot) : earlier[static_cast<std::size_t>(slot)];
  }
  return slots_.take(slots, preprocessing);
}

Examples ReplayBuffer::all(const Preprocessing& preprocessing) const {
  std::vector<std::int64_t> slots;
  for (std::int64_t i = 0; i < size_; ++i) slots.push_back(slot_of(i));
  return slots_.take(slots, preprocessing);
}

void ReplayBuffer::visit(StateVisitor& visitor, const std::string& name) {
  slots_.visit(visitor, name);
  placing_.visit(visitor, name + "/placed");
  drawing_.visit(visitor, name + "/drawn");
  visitor.integer(name + "/seen", seen_);
  visitor.integer(name + "/size", size_);
  visit_numbers(visitor, name + "/class_seen", class_seen_);
  visit_numbers(visitor, name + "/class_full", class_full_);
  visit_numbers(visitor, name + "/origin", origins_);
  if (size_ < 0 || size_ > capacity()) {
    throw DataError("dense entry 'strategy/" + name + "/size' is beyond the memory");
  }
  // What follows from the labels is not stored.
  std::fill(labels_.begin(), labels_.end(), -1);
  std::fill(class_held_.begin(), class_held_.end(), 0);
  if (kind_ == BufferKind::ring) {
    for (std::size_t c = 0; c < class_held_.size(); ++c) {
      class_held_[c] = std::min(class_seen_[c], quota_);
    }
  }
  for (std::int64_t i = 0; i < size_; ++i) {
    const std::int64_t slot = slot_of(i);
    const std::int64_t label = slots_.label(slot);
    if (label < 0 || label >= std::ssize(class_held_)) {
      throw DataError("dense entry 'strategy/" + name + "/y' has a label that there is not");
    }
    labels_[static_cast<std::size_t>(slot)] = label;
    if (kind_ != BufferKind::ring) ++class_held_[static_cast<std::size_t>(label)];
  }
}

}  // namespace perennial::continual
