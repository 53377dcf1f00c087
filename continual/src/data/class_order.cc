// SPDX-License-Identifier: Apache-2.0
// Renumbers classes.
#include "data/class_order.h"

#include <ATen/ops/tensor.h>

#include <algorithm>
#include <charconv>
#include <numeric>
#include <string_view>
#include <vector>

#include "data/random_lanes.h"
#include "perennial/core/error.h"
#include "perennial/kernels/philox.h"

namespace perennial::continual {
namespace {

// The class that a text names, by its label or its number; -1 = none.
std::int64_t class_named(std::string_view text, const std::vector<std::string>& names) {
  const auto named = std::find(names.begin(), names.end(), text);
  if (named != names.end()) return named - names.begin();
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool whole = error == std::errc{} && end == text.data() + text.size();
  return whole && number >= 0 && number < std::ssize(names) ? number : -1;
}

std::vector<std::int64_t> listed(const std::string& list, const std::vector<std::string>& names) {
  const auto refuse = [&](const std::string& what) {
    throw InvalidOptions("class_order is '" + list + "': " + what +
                         "; ascending, reversed, random, or each of the " +
                         std::to_string(names.size()) + " classes once was expected");
  };
  std::vector<std::int64_t> order;
  for (std::size_t begin = 0; begin <= list.size();) {
    const std::size_t end = std::min(list.find(',', begin), list.size());
    const std::string text = list.substr(begin, end - begin);
    order.push_back(class_named(text, names));
    if (order.back() < 0) refuse("there is no class '" + text + "'");
    if (std::find(order.begin(), order.end() - 1, order.back()) != order.end() - 1) {
      refuse("class '" + text + "' is there twice");
    }
    begin = end + 1;
  }
  if (order.size() != names.size()) refuse(std::to_string(order.size()) + " classes");
  return order;
}

}  // namespace

void order_classes(TrainTest& data, const StreamOptions& options) {
  const std::vector<std::string> names = data.train.label_names;
  std::vector<std::int64_t> order(names.size());
  std::iota(order.begin(), order.end(), 0);
  if (options.class_order == "ascending") return;
  if (options.class_order == "reversed") {
    std::reverse(order.begin(), order.end());
  } else if (options.class_order == "random") {
    std::vector<std::uint32_t> drawn(names.size());
    kernels::shuffled_indices(static_cast<std::uint64_t>(options.stream_seed),
                              random_lane(LaneUse::class_order, 0), drawn);
    order.assign(drawn.begin(), drawn.end());
  } else {
    order = listed(options.class_order, names);
  }
  std::vector<std::int64_t> place(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    place[static_cast<std::size_t>(order[i])] = static_cast<std::int64_t>(i);
    data.train.label_names[i] = names[static_cast<std::size_t>(order[i])];
  }
  data.test.label_names = data.train.label_names;
  const at::Tensor places = at::tensor(place, at::kLong);
  for (Dataset* part : {&data.train, &data.test}) part->y = places.index_select(0, part->y);
}

}  // namespace perennial::continual
