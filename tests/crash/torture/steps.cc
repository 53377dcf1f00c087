// SPDX-License-Identifier: Apache-2.0
// The steps of the torture harness, and the comparison with the oracle.
#include "steps.h"

#include <algorithm>
#include <array>
#include <ranges>
#include <set>
#include <utility>

namespace perennial::storage::testing {
namespace {

constexpr std::uint32_t kRows = 12;
constexpr std::uint32_t kTiles = 3;

PageId random_page(Random& random) {
  const PageKind kind = one_in(random, 4) ? PageKind::state : PageKind::weights;
  return {kind, static_cast<std::uint32_t>(below(random, 2)),
          static_cast<std::uint32_t>(below(random, kRows)),
          static_cast<std::uint32_t>(below(random, kTiles))};
}

std::string new_snapshot(Random& random, const Expected& expected) {
  if (!one_in(random, 4)) return "";
  std::string name = "s";
  name.append(std::to_string(expected.head + 1)).append(".");
  return name.append(std::to_string(below(random, 1000)));
}

void drop_commit(Expected& expected, std::uint64_t commit) {
  expected.commits.erase(commit);
  std::erase_if(expected.snapshots, [&](const auto& item) { return item.second == commit; });
}

// A commit becomes the head and can be restored; the retention rule lets others go.
void add_commit(Expected& expected, std::shared_ptr<const Model> model,
                const std::string& snapshot) {
  ++expected.head;
  expected.commits[expected.head] = std::move(model);
  if (!snapshot.empty()) expected.snapshots[snapshot] = expected.head;
  if (expected.keep_last == 0) return;
  std::set<std::uint64_t> kept{0};
  for (const auto& [name, commit] : expected.snapshots) kept.insert(commit);
  std::uint32_t last = 0;
  for (auto at = expected.commits.rbegin();
       at != expected.commits.rend() && last < expected.keep_last; ++at, ++last) {
    kept.insert(at->first);
  }
  std::erase_if(expected.commits, [&](const auto& item) { return !kept.contains(item.first); });
}

// A commit that can be restored, not 0.
std::uint64_t random_commit(Random& random, const Expected& expected) {
  return std::next(expected.commits.begin(),
                   static_cast<std::ptrdiff_t>(1 + below(random, expected.commits.size() - 1)))
      ->first;
}

class CommitStep final : public Step {
 public:
  CommitStep(Random& random, const Expected& expected)
      : model_(std::make_shared<Model>(expected.model())), change_(*model_) {
    const std::uint64_t pages = below(random, 7);
    for (std::uint64_t i = 0; i < pages; ++i) {
      const PageId id = random_page(random);
      const auto there = model_->pages.find(id);
      if (there != model_->pages.end() && one_in(random, 2)) {  // a delta, where that pays
        const std::uint64_t experts = there->second.shape.experts;
        change_.experts(id, std::uint64_t{1} << below(random, experts), random());
        continue;
      }
      const auto experts = static_cast<std::uint32_t>(1 + below(random, 12));
      const std::uint32_t floats = one_in(random, 20) ? 4000 : 16;
      change_.page(id, random(), shape_of(experts, floats));
    }
    // Not among the pages just written: their kind is used for nothing else.
    for (std::uint64_t i = below(random, 3); i > 0; --i) {
      const PageId id = random_page(random);
      bool written = false;
      for (const PageWrite& page : change_.get().pages) written = written || page.id == id;
      if (!written) change_.remove(id);
    }
    if (one_in(random, 2)) change_.dense("counter", bytes_of(random(), 40));
    if (one_in(random, 15)) change_.dense("moments", bytes_of(random(), 300'000));
    if (one_in(random, 6)) change_.dense("replay", bytes_of(random(), below(random, 3000)));
    if (one_in(random, 6) && !change_.request.dense.contains("replay")) {
      change_.remove_dense("replay");
    }
    change_.snapshot(new_snapshot(random, expected));
    change_.request.note = std::to_string(random());
    if (one_in(random, 20)) {
      change_.request.retention = Retention{static_cast<std::uint32_t>(below(random, 6))};
    }
    in_flight_ = one_in(random, 3);
  }
  std::string describe() const override { return in_flight_ ? "commit in flight" : "commit"; }
  Status run(PageStore& store) override {
    if (!in_flight_) return store.commit(change_.get()).status();
    return store.commit_async(change_.get()).get().status();
  }
  void apply(Expected& expected) const override {
    if (change_.request.retention) expected.keep_last = change_.request.retention->keep_last;
    add_commit(expected, model_, change_.request.snapshot);
  }

 private:
  std::shared_ptr<Model> model_;
  Change change_;
  bool in_flight_ = false;
};

// Half of them roll back: what came later is dropped.
class RestoreStep final : public Step {
 public:
  RestoreStep(Random& random, const Expected& expected) {
    request_.commit = random_commit(random, expected);
    request_.snapshot = new_snapshot(random, expected);
    request_.drop_later = one_in(random, 2);
  }
  std::string describe() const override {
    return std::string(request_.drop_later ? "roll back to commit " : "restore commit ")
        .append(std::to_string(request_.commit));
  }
  Status run(PageStore& store) override { return store.restore(request_).status(); }
  void apply(Expected& expected) const override {
    const std::shared_ptr<const Model> model = expected.commits.at(request_.commit);
    if (request_.drop_later) {
      while (expected.commits.rbegin()->first > request_.commit) {
        drop_commit(expected, expected.commits.rbegin()->first);
      }
    }
    add_commit(expected, model, request_.snapshot);
  }

 private:
  RestoreRequest request_;
};

class DropStep final : public Step {
 public:
  DropStep(Random& random, const Expected& expected) {
    do {
      commit_ = random_commit(random, expected);
    } while (commit_ == expected.head);
  }
  std::string describe() const override {
    return std::string("drop ").append(std::to_string(commit_));
  }
  Status run(PageStore& store) override { return store.drop({commit_}, "").status(); }
  void apply(Expected& expected) const override {
    const std::shared_ptr<const Model> model = expected.commits.at(expected.head);
    drop_commit(expected, commit_);
    add_commit(expected, model, "");
  }

 private:
  std::uint64_t commit_ = 0;
};

// Changes nothing that can be seen.
class ReclaimStep final : public Step {
 public:
  ReclaimStep(Random& random, const Expected&) {
    options_.max_dead = static_cast<double>(below(random, 10)) / 10;
    options_.target_space = one_in(random, 2) ? 1 : 0;
    options_.fold_files = static_cast<std::uint32_t>(below(random, 4));
  }
  std::string describe() const override { return "reclaim"; }
  Status run(PageStore& store) override { return store.reclaim(options_).status(); }
  void apply(Expected&) const override {}

 private:
  ReclaimOptions options_;
};

template <class T>
std::unique_ptr<Step> make(Random& random, const Expected& expected) {
  return std::make_unique<T>(random, expected);
}

struct StepKind {
  std::uint64_t weight;
  bool (*possible)(const Expected&);
  std::unique_ptr<Step> (*make)(Random&, const Expected&);
};

bool any_commit(const Expected& expected) { return expected.commits.size() > 1; }
bool any_to_drop(const Expected& expected) { return expected.commits.size() > 2; }

const std::array<StepKind, 4> kSteps = {{
    {18, [](const Expected&) { return true; }, make<CommitStep>},
    {2, any_commit, make<RestoreStep>},
    {2, any_to_drop, make<DropStep>},
    {3, any_commit, make<ReclaimStep>},
}};

Comparison from(const Status& status, const std::string& what) {
  const bool unreadable = status.code() != StatusCode::not_found;
  return {unreadable ? Match::unreadable : Match::different, what + ": " + status.to_string()};
}

Comparison compare_page(const PageReader& store, const PageId& id, const Model::Page& page) {
  const std::string name = to_string(id);
  const Result<PageShape> shape = store.page_shape(id);
  if (!shape.ok()) return from(shape.status(), name);
  if (!(*shape == page.shape)) return {Match::different, name + ": other shape"};
  Bytes payload(page.payload.size());
  if (Status status = store.read_page(id, payload); !status.ok()) return from(status, name);
  if (payload != page.payload) return {Match::different, name + ": other bytes"};
  return {};
}

void note(Comparison& worst, Comparison one) {
  if (one.match > worst.match) worst = std::move(one);
}

Comparison compare_state(const PageReader& store, const Model& model) {
  std::vector<PageId> ids;
  for (const auto& [id, page] : model.pages) ids.push_back(id);
  if (store.pages() != ids) return {Match::different, "other pages"};
  std::vector<std::string> names;
  for (const auto& [name, bytes] : model.dense) names.push_back(name);
  if (store.dense_names() != names) return {Match::different, "other dense names"};
  Comparison worst;
  for (const auto& [id, page] : model.pages) note(worst, compare_page(store, id, page));
  for (const auto& [name, bytes] : model.dense) {
    const Result<Bytes> found = store.read_dense(name);
    if (!found.ok()) {
      note(worst, from(found.status(), name));
    } else if (*found != bytes) {
      note(worst, {Match::different, "dense entry " + name + ": other bytes"});
    }
  }
  return worst;
}

}  // namespace

std::unique_ptr<Step> draw_step(std::uint64_t seed, const Expected& expected) {
  Random random(seed);
  std::uint64_t total = 0;
  for (const StepKind& kind : kSteps) total += kind.possible(expected) ? kind.weight : 0;
  std::uint64_t at = below(random, total);
  for (const StepKind& kind : kSteps) {
    if (!kind.possible(expected)) continue;
    if (at < kind.weight) return kind.make(random, expected);
    at -= kind.weight;
  }
  return nullptr;  // not reached: the weights add up to the total
}

Comparison compare(const PageStore& store, const Expected& expected) {
  const Result<CommitInfo> head = store.head();
  const std::uint64_t commit = head.ok() ? head->commit : 0;
  if (!head.ok() && head.status().code() != StatusCode::not_found)
    return from(head.status(), "head");
  if (commit != expected.head) {
    return {Match::different, "the last commit is " + std::to_string(commit) + ", expected " +
                                  std::to_string(expected.head)};
  }
  Comparison worst = compare_state(store, expected.model());
  std::vector<std::uint64_t> listed{0};
  for (const CommitInfo& info : store.log()) listed.push_back(info.commit);
  if (!std::ranges::equal(listed, std::views::keys(expected.commits))) {
    return {Match::different, "other commits can be restored"};
  }
  if (expected.commits.size() > 1) {
    const auto& [number, model] = *std::next(expected.commits.begin());
    const auto oldest = store.at(number);
    note(worst, oldest.ok()
                    ? compare_state(**oldest, *model)
                    : from(oldest.status(), std::string("commit ").append(std::to_string(number))));
  }
  for (const auto& [name, number] : expected.snapshots) {
    const Result<std::uint64_t> found = store.resolve(name);
    if (!found.ok()) {
      note(worst, from(found.status(), std::string("snapshot ").append(name)));
    } else if (*found != number) {
      note(worst, {Match::different, "snapshot " + name + " is another commit"});
    }
  }
  return worst;
}

std::string verify_failure(PageStore& store) {
  const Result<VerifyReport> report = store.verify();
  if (!report.ok()) return report.status().to_string();
  return report->damage.empty() ? "" : report->damage[0].file + ": " + report->damage[0].what;
}

}  // namespace perennial::storage::testing
