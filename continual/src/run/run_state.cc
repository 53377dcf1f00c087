// SPDX-License-Identifier: Apache-2.0
// Encodes and decodes a run's state. Numbers that must come back exactly are tensors, not JSON.
#include "run/run_state.h"

#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value_from.hpp>
#include <boost/json/value_to.hpp>
#include <cmath>
#include <limits>
#include <sstream>

#include "data/preprocessing.h"
#include "perennial/core/dense_state.h"
#include "perennial/storage/reshard.h"
#include "run/run_note.h"

namespace perennial::continual {

namespace json = boost::json;

namespace {

constexpr const char* kRun = "run";
// In notes: where the data of the last experience are, and the table that was followed.
constexpr const char *kDataset = "dataset", *kFollowed = "followed";
constexpr const char* kRunPrefix = "run/";
constexpr const char* kMatrix = "run/matrix";  // (T + 1, T) float64, NaN where absent
// (points, 4 + T) float64: experience, minibatch, steps, end, scores or NaN; only of a run that
// evaluates while it learns.
constexpr const char* kAnytime = "run/anytime";
constexpr const char* kNumbers = "run/numbers";  // float64: mean, deviation, gate accuracy or NaN
// (2, D) float64: means and deviations, where every feature has its own
constexpr const char* kFeatures = "run/features";
constexpr const char* kTargets = "run/targets";  // the same of a regression's targets
// (T, targets) float64: errors at the last evaluation of a regression, once there was one
constexpr const char* kErrors = "run/errors";
// Rows as read, (N, D), and their labels or targets: of a followed table's experience that
// goes on, and of test set N (from 0).
constexpr const char* kRowsEntry = "run/rows";
std::string test_entry(std::size_t number) { return "run/test/" + std::to_string(number); }

void offer_rows(const std::string& name, const Dataset& data, DenseEntries::Offer& offer) {
  offer.tensor(name + "/x", data.x);
  offer.tensor(name + "/y", data.y);
}

Dataset rows_in(const std::string& name, const storage::PageReader& store) {
  Dataset data;
  data.x = tensor_from(value_or_throw(store.read_dense(name + "/x")), name + "/x");
  data.y = tensor_from(value_or_throw(store.read_dense(name + "/y")), name + "/y");
  const bool labels = data.y.dim() == 1 && data.y.scalar_type() == at::kLong;
  const bool targets = data.y.dim() == 2 && data.y.scalar_type() == at::kDouble;
  if (data.x.dim() != 2 || !(labels || targets) || data.x.size(0) != data.y.size(0) ||
      !is_feature_type(data.x.scalar_type())) {
    throw DataError("dense entry '" + name + "' holds no rows with labels or targets");
  }
  return data;
}

at::Tensor to_tensor(const ScoreMatrix& matrix) {
  const std::int64_t n = matrix.experiences();
  at::Tensor tensor = at::full({n + 1, n}, std::numeric_limits<double>::quiet_NaN(), at::kDouble);
  auto values = tensor.accessor<double, 2>();
  for (std::int64_t i = 0; i <= n; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      if (matrix.has(i, j)) values[i][j] = matrix.at(i, j);
    }
  }
  return tensor;
}

ScoreMatrix from_tensor(const at::Tensor& tensor) {
  if (tensor.dim() != 2 || tensor.scalar_type() != at::kDouble || tensor.size(1) < 1 ||
      tensor.size(0) != tensor.size(1) + 1) {
    throw DataError("the store's score matrix has a wrong shape");
  }
  ScoreMatrix matrix(tensor.size(1));
  const auto values = tensor.accessor<double, 2>();
  for (std::int64_t i = 0; i < tensor.size(0); ++i) {
    if (std::isnan(values[i][0])) continue;
    std::vector<double> row(values[i].data(), values[i].data() + tensor.size(1));
    for (double& score : row) score = std::isnan(score) ? 0 : score;
    matrix.set_row(i, std::move(row));
    for (std::int64_t j = 0; j < tensor.size(1); ++j) {
      if (std::isnan(values[i][j])) matrix.clear(i, j);
    }
  }
  return matrix;
}

// (2, D)
at::Tensor to_tensor(const Preprocessing& preprocessing) {
  std::vector<double> values = preprocessing.means;
  values.insert(values.end(), preprocessing.deviations.begin(), preprocessing.deviations.end());
  return at::tensor(values, at::kDouble).view({2, std::ssize(preprocessing.means)});
}

at::Tensor to_tensor(const std::vector<std::vector<double>>& rows) {
  std::vector<double> values;
  for (const std::vector<double>& row : rows) values.insert(values.end(), row.begin(), row.end());
  return at::tensor(values, at::kDouble).view({std::ssize(rows), std::ssize(rows.front())});
}

// An entry of (rows, columns) float64; undefined where there is none.
at::Tensor numbers_in(const storage::PageReader& store, const char* name, std::int64_t rows,
                      std::int64_t columns) {
  const storage::Result<storage::Bytes> entry = store.read_dense(name);
  if (entry.status().code() == storage::StatusCode::not_found) return {};
  const at::Tensor numbers = tensor_from(value_or_throw(entry), name);
  if (numbers.sizes() != at::IntArrayRef({rows, columns}) || numbers.scalar_type() != at::kDouble) {
    throw DataError(std::string("dense entry '") + name + "' has a wrong shape");
  }
  return numbers;
}

// The reverse of to_tensor().
void set_scale(Preprocessing& preprocessing, const at::Tensor& numbers) {
  const std::int64_t D = numbers.size(1);
  const double* values = numbers.const_data_ptr<double>();
  preprocessing.means.assign(values, values + D);
  preprocessing.deviations.assign(values + D, values + 2 * D);
}

constexpr std::int64_t kPointFields = 4;

at::Tensor to_tensor(const AnytimeCurve& curve) {
  const auto rows = static_cast<std::int64_t>(curve.points.size());
  at::Tensor tensor = at::full({rows, kPointFields + curve.test_sets},
                               std::numeric_limits<double>::quiet_NaN(), at::kDouble);
  double* out = tensor.mutable_data_ptr<double>();
  for (const AnytimePoint& point : curve.points) {
    out[0] = static_cast<double>(point.experience);
    out[1] = static_cast<double>(point.minibatch);
    out[2] = static_cast<double>(point.steps);
    out[3] = point.end ? 1 : 0;
    std::copy(point.scores.begin(), point.scores.end(), out + kPointFields);
    out += kPointFields + curve.test_sets;
  }
  return tensor;
}

std::vector<AnytimePoint> points_from(const at::Tensor& tensor, std::int64_t test_sets) {
  if (tensor.dim() != 2 || tensor.scalar_type() != at::kDouble ||
      tensor.size(1) != kPointFields + test_sets) {
    throw DataError("the store's anytime curve has a wrong shape");
  }
  std::vector<AnytimePoint> points;
  const double* in = tensor.const_data_ptr<double>();
  for (std::int64_t i = 0; i < tensor.size(0); ++i, in += tensor.size(1)) {
    AnytimePoint point{static_cast<std::int64_t>(in[0]),
                       static_cast<std::int64_t>(in[1]),
                       static_cast<std::int64_t>(in[2]),
                       in[3] != 0,
                       {}};
    for (std::int64_t j = 0; j < test_sets && !std::isnan(in[kPointFields + j]); ++j) {
      point.scores.push_back(in[kPointFields + j]);
    }
    points.push_back(std::move(point));
  }
  return points;
}

std::string text_at(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  return value == nullptr ? std::string() : std::string(value->as_string());
}

// What the record itself tells of a run; the rest is in entries of its own.
RunState run_state_of(const json::object& record) {
  if (record.at("version").as_int64() != 1) {
    throw DataError("the store's run has version " + json::serialize(record.at("version")) +
                    "; this program reads version 1");
  }
  RunState state;
  state.config = RunConfig::from_json(record.at("config").as_object());
  state.config.stream.dataset = text_at(record.at("config").at("stream").as_object(), "dataset");
  state.label_names = json::value_to<std::vector<std::string>>(record.at("labels"));
  state.data_digest = digest_from_hex(record.at("data").as_string());
  state.position = {record.at("experience").as_int64(), record.at("epoch").as_int64(),
                    record.at("step").as_int64()};
  state.steps = record.at("steps").as_int64();
  state.finished = record.at("finished").as_bool();
  state.preprocessing.features = record.at("features").as_int64();
  if (const json::value* columns = record.if_contains("columns")) {
    state.preprocessing.columns = json::value_to<std::vector<std::string>>(*columns);
  }
  if (const json::value* targets = record.if_contains("targets")) {
    state.targets.columns = json::value_to<std::vector<std::string>>(*targets);
    state.targets.features = std::ssize(state.targets.columns);
  }
  if (const json::value* unlearned = record.if_contains("unlearned_after")) {
    state.unlearned_after =
        json::value_to<std::vector<std::pair<std::uint32_t, std::int64_t>>>(*unlearned);
  }
  if (const json::value* after = record.if_contains("classes_after")) {
    state.classes_after = json::value_to<std::vector<std::int64_t>>(*after);
  }
  if (const json::value* entry = record.if_contains("follow")) {
    const json::object& follow = entry->as_object();
    state.follow = FollowState{text_at(follow, "file"),
                               FollowPosition::from_json(follow.at("position").as_object()),
                               follow.at("rows").as_int64(), follow.at("current").as_bool()};
  }
  return state;
}

// Where the data are is in the commits' notes; older versions had it in the record.
void find_paths(RunState& state, const storage::PageReader& store) {
  const json::object note = note_with(store, kDataset);
  const auto find = [&](std::string& path, const char* key) {
    path = path.empty() ? text_at(note, key) : data_location(path);
  };
  find(state.config.stream.dataset, kDataset);
  if (state.follow) find(state.follow->file, kFollowed);
}

}  // namespace

void RunState::note_paths(json::object& note) const {
  note[kDataset] = config.stream.dataset;
  if (follow) note[kFollowed] = follow->file;
}

std::vector<std::uint32_t> RunState::unlearned_since() const {
  std::vector<std::uint32_t> generations;
  for (const auto& [generation, experiences] : unlearned_after) {
    if (experiences == position.experience) generations.push_back(generation);
  }
  return generations;
}

void RunState::offer(DenseEntries::Offer& offer) const {
  json::object settings = config.to_json();
  settings.at("stream").as_object().stable_erase("dataset");
  json::object record{{"version", 1},
                      {"config", std::move(settings)},
                      {"labels", json::value_from(label_names)},
                      {"data", data_digest.hex()},
                      {"features", preprocessing.features},
                      {"experience", position.experience},
                      {"epoch", position.epoch},
                      {"step", position.step},
                      {"steps", steps},
                      {"finished", finished}};
  if (!preprocessing.columns.empty()) record["columns"] = json::value_from(preprocessing.columns);
  if (!targets.columns.empty()) record["targets"] = json::value_from(targets.columns);
  if (!unlearned_after.empty()) record["unlearned_after"] = json::value_from(unlearned_after);
  if (!tests.empty()) record["classes_after"] = json::value_from(classes_after);
  for (std::size_t i = 0; i < tests.size(); ++i) offer_rows(test_entry(i), tests[i], offer);
  if (follow) {
    const bool pending = follow->pending.x.defined();
    record["follow"] = json::object{{"current", follow->current},
                                    {"position", follow->position.to_json()},
                                    {"rows", follow->rows},
                                    {"pending", pending}};
    offer_rows(kRowsEntry, follow->pending, offer);
  }
  const std::string text = record_text(record);
  try {
    run_state_of(json::parse(text).as_object());
  } catch (const std::exception& error) {
    throw Error(std::string("the run to be committed could not be read back: ") + error.what());
  }
  offer.bytes(kRun, bytes_from(text));
  if (!preprocessing.means.empty()) offer.bytes(kFeatures, bytes_from(to_tensor(preprocessing)));
  if (!targets.means.empty()) offer.bytes(kTargets, bytes_from(to_tensor(targets)));
  if (!errors.empty()) offer.bytes(kErrors, bytes_from(to_tensor(errors)));
  offer.bytes(kMatrix, bytes_from(to_tensor(matrix)));
  if (anytime.options.on()) offer.bytes(kAnytime, bytes_from(to_tensor(anytime)));
  offer.bytes(kNumbers, bytes_from(at::tensor(
                            {preprocessing.mean, preprocessing.deviation,
                             gate_accuracy.value_or(std::numeric_limits<double>::quiet_NaN())},
                            at::kDouble)));
}

void RunEntries::add_to_commit(storage::CommitRequest& request) {
  DenseEntries::Offer offer = entries_.offer(request);
  state_.offer(offer);
}

void RunEntries::loaded(const storage::PageReader& store) {
  const std::vector<std::string> names = store.dense_names();
  for (const std::string& name : names) {
    if (name.starts_with(kRunPrefix)) entries_.stored(name);
  }
  for (std::size_t i = 0; i < state_.tests.size(); ++i) {
    for (const auto& [part, rows] :
         {std::pair("/x", state_.tests[i].x), {"/y", state_.tests[i].y}}) {
      const std::string name = test_entry(i) + part;
      if (std::find(names.begin(), names.end(), name) != names.end()) entries_.stored(name, rows);
    }
  }
}

storage::Result<RunState> load_run_state(const storage::PageReader& store) {
  // A part has all dense entries and some of the pages: what it lacks would pass for untrained.
  if (const auto entry = store.read_dense(storage::kPartEntry); entry.ok()) {
    std::istringstream text(text_from(*entry));
    std::uint64_t index = 0, count = 0;
    text >> index >> count;
    return storage::Status(storage::StatusCode::invalid_argument,
                           store.location() + " is part " + std::to_string(index + 1) + " of " +
                               std::to_string(count) +
                               " of a store; bring the parts together with reshard first");
  }
  storage::Result<storage::Bytes> bytes = store.read_dense(kRun);
  if (bytes.status().code() == storage::StatusCode::not_found) {
    return storage::Status(storage::StatusCode::not_found, "the store holds no run");
  }
  if (!bytes.ok()) return bytes.status();
  try {
    const json::object record = json::parse(text_from(*bytes)).as_object();
    RunState state = run_state_of(record);
    find_paths(state, store);
    const auto tensor = [&](const char* name) {
      return tensor_from(value_or_throw(store.read_dense(name)), name);
    };
    state.matrix = from_tensor(tensor(kMatrix));
    if (state.config.train.anytime.on()) {
      state.anytime.points = points_from(tensor(kAnytime), state.matrix.experiences());
    }
    const at::Tensor numbers = tensor(kNumbers);
    if (numbers.numel() != 3 || numbers.scalar_type() != at::kDouble) {
      throw DataError("the store's run numbers have a wrong shape");
    }
    const double* value = numbers.const_data_ptr<double>();
    state.preprocessing.mean = value[0];
    state.preprocessing.deviation = value[1];
    if (const at::Tensor own = numbers_in(store, kFeatures, 2, state.preprocessing.features);
        own.defined()) {
      set_scale(state.preprocessing, own);
    }
    if (state.targets.features > 0) {
      const std::int64_t C = state.targets.features, T = state.matrix.experiences();
      const at::Tensor scale = numbers_in(store, kTargets, 2, C);
      if (!scale.defined()) throw DataError("the store has no means of its run's targets");
      set_scale(state.targets, scale);
      if (const at::Tensor errors = numbers_in(store, kErrors, T, C); errors.defined()) {
        const double* of_set = errors.const_data_ptr<double>();
        for (std::int64_t j = 0; j < T; ++j, of_set += C) {
          state.errors.emplace_back(of_set, of_set + C);
        }
      }
    }
    if (!std::isnan(value[2])) state.gate_accuracy = value[2];
    if (record.contains("classes_after")) {
      for (std::size_t i = 0; i < state.classes_after.size(); ++i) {
        state.tests.push_back(rows_in(test_entry(i), store));
      }
      if (std::ssize(state.tests) != state.matrix.experiences() ||
          state.classes_after.back() != std::ssize(state.label_names)) {
        throw DataError("the store's test sets are not those of its run");
      }
    }
    if (state.follow && record.at("follow").at("pending").as_bool()) {
      state.follow->pending = rows_in(kRowsEntry, store);
    }
    return state;
  } catch (const InvalidOptions& error) {
    throw DataError(std::string("the store's record of its run is malformed: ") + error.what());
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    throw DataError(std::string("the store's record of its run is malformed: ") + error.what());
  }
}

}  // namespace perennial::continual
