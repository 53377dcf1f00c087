// SPDX-License-Identifier: Apache-2.0
// Boundaries in the notes of commits.
#include "run/boundaries.h"

#include <boost/json/array.hpp>
#include <boost/json/value_to.hpp>
#include <cmath>
#include <limits>

#include "perennial/core/options.h"
#include "run/run_note.h"

namespace perennial::continual {

namespace json = boost::json;

namespace {

constexpr const char* kField = "boundaries";

std::vector<std::vector<double>> errors_in(const json::array& sets) {
  std::vector<std::vector<double>> errors;
  for (const json::value& of_set : sets) {
    errors.emplace_back();
    for (const json::value& error : of_set.as_array()) {
      errors.back().push_back(error.is_null() ? std::numeric_limits<double>::infinity()
                                              : options_detail::to_number(kField, error));
    }
  }
  return errors;
}

json::array errors_array(const std::vector<std::vector<double>>& errors) {
  json::array sets;
  for (const std::vector<double>& of_set : errors) {
    json::array numbers;
    for (const double error : of_set) {
      numbers.push_back(std::isinf(error) ? json::value(nullptr)
                                          : options_detail::exact_number(error));
    }
    sets.push_back(std::move(numbers));
  }
  return sets;
}

}  // namespace

Boundaries Boundaries::load(const storage::PageReader& store) {
  Boundaries loaded;
  const json::object note = note_with(store, kField);
  if (note.empty()) return loaded;
  try {
    for (const json::value& value : note.at(kField).as_array()) {
      loaded.boundaries_.emplace_back();
      if (value.is_null()) continue;
      Boundary boundary;
      boundary.steps = value.at(0).as_int64();
      if (!value.at(1).is_null()) {
        boundary.gate_accuracy = options_detail::to_number(kField, value.at(1));
      }
      boundary.record.bytes = json::value_to<std::uint64_t>(value.at(2));
      if (value.as_array().size() > 3) {
        boundary.record.digest = json::value_to<std::string>(value.at(3));
      }
      if (value.as_array().size() > 4) boundary.errors = errors_in(value.at(4).as_array());
      loaded.boundaries_.back() = boundary;
    }
  } catch (const std::exception& error) {
    throw DataError(std::string("the note of a commit has malformed boundaries: ") + error.what());
  }
  return loaded;
}

void Boundaries::mark(const RunState& state, const RecordMark& record) {
  const auto at = static_cast<std::size_t>(state.position.experience);
  boundaries_.resize(at + 1);
  boundaries_[at] = Boundary{state.steps, state.gate_accuracy, record, state.errors};
}

const Boundary* Boundaries::find(std::int64_t experience) const {
  const auto at = static_cast<std::size_t>(experience);
  return at < boundaries_.size() && boundaries_[at] ? &*boundaries_[at] : nullptr;
}

std::vector<RecordMark> Boundaries::records() const {
  std::vector<RecordMark> records;
  for (auto boundary = boundaries_.rbegin(); boundary != boundaries_.rend(); ++boundary) {
    if (*boundary) records.push_back((*boundary)->record);
  }
  return records;
}

void Boundaries::cut(std::int64_t experience) {
  const auto size = static_cast<std::size_t>(experience) + 1;
  if (boundaries_.size() > size) boundaries_.resize(size);
}

void Boundaries::add_to(json::object& note) const {
  json::array all;
  for (const std::optional<Boundary>& boundary : boundaries_) {
    if (!boundary) {
      all.push_back(nullptr);
      continue;
    }
    json::array entry{boundary->steps,
                      boundary->gate_accuracy
                          ? options_detail::exact_number(*boundary->gate_accuracy)
                          : json::value(nullptr),
                      boundary->record.bytes, boundary->record.digest};
    if (!boundary->errors.empty()) entry.push_back(errors_array(boundary->errors));
    all.push_back(std::move(entry));
  }
  note[kField] = std::move(all);
}

}  // namespace perennial::continual
