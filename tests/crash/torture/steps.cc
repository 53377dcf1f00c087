// SPDX-License-Identifier: Apache-2.0
// The steps of the torture harness, and the comparison with the oracle.
#include "steps.h"

#include <array>
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
  return "s" + std::to_string(expected.head + 1) + "." + std::to_string(below(random, 1000));
}

// A commit becomes the head, and can be restored.
void add_commit(Expected& expected, std::shared_ptr<const Model> model,
                const std::string& snapshot) {
  ++expected.head;
  expected.commits[expected.head] = std::move(model);
  if (!snapshot.empty()) expected.snapshots[snapshot] = expected.head;
}

class CommitStep final : public Step {
 public:
  CommitStep(Random& random, const Expected& expected)
      : model_(std::make_shared<Model>(expected.model())), change_(*model_) {
    const std::uint64_t pages = below(random, 7);
    for (std::uint64_t i = 0; i < pages; ++i) {
      const auto experts = static_cast<std::uint32_t>(1 + below(random, 4));
      const std::uint32_t floats = one_in(random, 20) ? 4000 : 16;
      change_.page(random_page(random), random(), shape_of(experts, floats));
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
  }
  std::string describe() const override { return "commit"; }
  Status run(PageStore& store) override { return store.commit(change_.get()).status(); }
  void apply(Expected& expected) const override {
    add_commit(expected, model_, change_.request.snapshot);
  }

 private:
  std::shared_ptr<Model> model_;
  Change change_;
};

class RestoreStep final : public Step {
 public:
  RestoreStep(Random& random, const Expected& expected)
      : snapshot_(new_snapshot(random, expected)) {
    auto source =
        std::next(expected.commits.begin(),
                  static_cast<std::ptrdiff_t>(1 + below(random, expected.commits.size() - 1)));
    commit_ = source->first;
  }
  std::string describe() const override { return "restore " + std::to_string(commit_); }
  Status run(PageStore& store) override { return store.restore(commit_, snapshot_, "").status(); }
  void apply(Expected& expected) const override {
    add_commit(expected, expected.commits.at(commit_), snapshot_);
  }

 private:
  std::uint64_t commit_ = 0;
  std::string snapshot_;
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

const std::array<StepKind, 2> kSteps = {{
    {9, [](const Expected&) { return true; }, make<CommitStep>},
    {1, [](const Expected& e) { return e.commits.size() > 1; }, make<RestoreStep>},
}};

Comparison from(const Status& status, const std::string& what) {
  const bool unreadable = status.code() != StatusCode::not_found;
  return {unreadable ? Match::unreadable : Match::different, what + ": " + status.to_string()};
}

Comparison compare_page(const PageStore& store, const PageId& id, const Model::Page& page) {
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
  const Model& model = expected.model();
  const Result<CommitInfo> head = store.head();
  const std::uint64_t commit = head.ok() ? head->commit : 0;
  if (!head.ok() && head.status().code() != StatusCode::not_found)
    return from(head.status(), "head");
  if (commit != expected.head) {
    return {Match::different, "the last commit is " + std::to_string(commit) + ", expected " +
                                  std::to_string(expected.head)};
  }
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
  for (const auto& [name, number] : expected.snapshots) {
    const Result<std::uint64_t> found = store.resolve(name);
    if (!found.ok()) {
      note(worst, from(found.status(), "snapshot " + name));
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
