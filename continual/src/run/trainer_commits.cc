// SPDX-License-Identifier: Apache-2.0
// What a run commits, and when.
#include <utility>

#include "perennial/core/dense_state.h"
#include "run/run_note.h"
#include "run/trainer_impl.h"

namespace perennial::continual {

namespace json = boost::json;

// After a restore to an earlier experience its successors' names are taken: "experience-3-2"
// then.
std::string Trainer::Impl::free_name(const std::string& wanted) const {
  std::string name = wanted;
  for (int n = 2; !name.empty() && store->resolve(name).ok(); ++n) {
    name = wanted + "-" + std::to_string(n);
  }
  return name;
}

// The mean score on what was learnt so far, where it was just measured; at the end that is the
// metric acc.
std::optional<double> Trainer::Impl::acc_so_far(const std::string& action) const {
  const std::int64_t learnt = state.position.experience;
  if (state.finished) return acc(state.matrix);
  if (action != "experience" || !state.matrix.has_row(learnt)) return std::nullopt;
  double sum = 0;
  for (std::int64_t j = 0; j < learnt; ++j) sum += state.matrix.at(learnt, j);
  return sum / static_cast<double>(learnt);
}

// The state as it is now.
storage::CommitRequest Trainer::Impl::freeze(const std::string& action,
                                             const std::string& snapshot) {
  storage::CommitRequest request;
  participants().add_to_commit(request);
  request.snapshot = free_name(snapshot);
  if (settings.retention && !(*settings.retention == store->retention())) {
    request.retention = settings.retention;
  }
  json::object note{{"action", action},
                    {"experience", state.position.experience},
                    {"steps", state.steps},
                    {"experience_seconds", clock.seconds()},
                    {"machine", machine(settings.placement)}};
  state.note_paths(note);
  set_record_mark(note, record.mark());
  if (state.position.at_start()) boundaries.mark(state, record.mark());
  boundaries.add_to(note);
  if (model->experts() != nullptr) {
    note["generations"] = model->experts()->generations();
    note["pager"] = counters_json(model->experts()->counters());
  }
  if (const std::optional<double> value = acc_so_far(action))
    note[score_names(state.config.task()).metric] = *value;
  request.note = record_text(note);
  last_commit = std::chrono::steady_clock::now();
  commit_due = false;
  return request;
}

// Of the whole store; not while training waits for it.
json::value Trainer::Impl::store_bytes(const std::string& action) const {
  if (action == "progress") return nullptr;
  const storage::Result<std::uint64_t> bytes = store->size_bytes();
  return bytes.ok() ? json::value(*bytes) : json::value(nullptr);
}

void Trainer::Impl::make_committer() {
  committer.emplace(
      *store,
      Committer::Hooks{
          [this](const std::string& action, const std::string& snapshot) {
            return freeze(action, snapshot);
          },
          [this](const storage::CommitInfo& info, const std::string& action, const std::string&) {
            participants().committed();
            state_digest = info.state_digest.hex();
            record.event("commit", {{"commit", info.commit},
                                    {"action", action},
                                    {"snapshot", info.snapshot},
                                    {"pages_written", info.pages_written},
                                    {"bytes_written", info.bytes_written},
                                    {"experience", state.position.experience},
                                    {"store_bytes", store_bytes(action)},
                                    {"state_digest", state_digest}});
          },
          [this](const storage::Status& status) {
            participants().commit_failed();
            commit_due = true;
            record.event("commit_failed", {{"error", status.to_string()}});
            if (settings.on_warning) {
              settings.on_warning("a commit failed, the one before stays current: " +
                                  status.message());
            }
          },
          settings.stop_requested},
      std::chrono::duration<double>(settings.commit_patience_seconds));
}

// Durable when it returns.
void Trainer::Impl::commit(const std::string& action, const std::string& snapshot) {
  if (!committer) return;
  report("committing");
  committer->commit(action, snapshot);
}

// Starts a commit if one is due and none is in flight; training goes on.
void Trainer::Impl::commit_if_due() {
  if (!committer) return;
  committer->poll();
  const std::int64_t every = state.config.train.commit_every;
  const auto since = std::chrono::steady_clock::now() - last_commit;
  commit_due = commit_due || (every > 0 && state.steps % every == 0) ||
               (settings.commit_seconds > 0 &&
                since >= std::chrono::duration<double>(settings.commit_seconds)) ||
               (settings.commit_dirty_bytes > 0 && model->experts() != nullptr &&
                std::cmp_greater_equal(model->experts()->counters().dirty_bytes,
                                       settings.commit_dirty_bytes));
  if (commit_due) committer->start("progress");
}

}  // namespace perennial::continual
