// SPDX-License-Identifier: Apache-2.0
// What is offered to a commit, what is not offered again, and what happens when commits fail.
#include "perennial/core/dense_entries.h"

#include <ATen/ops/_fused_adam.h>
#include <torch/optim/sgd.h>

#include <optional>
#include <vector>

#include "core/core_testing.h"
#include "perennial/core/dense_state.h"
#include "perennial/core/participant.h"

namespace perennial {
namespace {

using namespace perennial::testing;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A participant of tensors and texts by name.
class Parts : public Participant {
 public:
  void add_to_commit(storage::CommitRequest& request) override {
    DenseEntries::Offer offer = entries.offer(request);
    for (const auto& [name, tensor] : tensors) offer.tensor(name, tensor);
    for (const auto& [name, text] : texts) offer.bytes(name, bytes_from(text));
  }
  void committed() override { entries.committed(); }
  void commit_failed() override { entries.commit_failed(); }

  storage::CommitRequest share() {
    storage::CommitRequest request;
    add_to_commit(request);
    return request;
  }
  // The names of what a commit that succeeds was given.
  std::vector<std::string> commit() {
    const std::vector<std::string> names = names_in(share());
    committed();
    return names;
  }
  static std::vector<std::string> names_in(const storage::CommitRequest& request) {
    std::vector<std::string> names;
    for (const auto& [name, payload] : request.dense) names.push_back(name);
    return names;
  }

  DenseEntries entries;
  std::map<std::string, at::Tensor> tensors;
  std::map<std::string, std::string> texts;
};

at::Tensor offered(const storage::CommitRequest& request, const std::string& name) {
  return tensor_from(dense_bytes(request).at(name), name);
}

TEST(DenseEntries, OfferTheBytesOfTheTensor) {
  Parts parts;
  parts.tensors = {{"a", normal_tensor({3, 5}, 1)},
                   {"cut", normal_tensor({8, 6}, 2).t().slice(0, 1, 4)},
                   {"empty", at::empty({0, 4})},
                   {"large", normal_tensor({(5 << 20) + 3}, 3)},  // several threads, huge pages
                   {"number", at::scalar_tensor(7, at::kLong)},
                   {"trains", normal_tensor({4}, 4).requires_grad_()},
                   {"undefined", {}}};
  const storage::CommitRequest request = parts.share();
  EXPECT_EQ(request.dense.size(), 6U);
  for (const auto& [name, tensor] : parts.tensors) {
    if (!tensor.defined()) continue;
    EXPECT_EQ(dense_bytes(request).at(name), bytes_from(tensor)) << name;
    EXPECT_EQ(request.dense.at(name).size(), bytes_from(tensor).size()) << name;
  }
  parts.tensors = {{"b", at::zeros({2}, at::kBFloat16)}};
  EXPECT_THROW((void)parts.share(), Error);
}

TEST(DenseEntries, OnlyWhatChangedIsOfferedAgain) {
  Parts parts;
  parts.tensors = {{"a", at::ones({4})}, {"b", at::ones({4})}, {"c", at::ones({4})}};
  parts.texts = {{"record", "1"}};
  EXPECT_THAT(parts.commit(), ElementsAre("a", "b", "c", "record"));
  EXPECT_THAT(parts.commit(), IsEmpty());
  parts.tensors["a"].add_(1);
  parts.texts["record"] = "2";
  EXPECT_THAT(parts.commit(), ElementsAre("a", "record"));
  parts.tensors["b"] = at::ones({4});  // another one, of equal content
  parts.tensors["c"].set_data(at::zeros({4}));
  EXPECT_THAT(parts.commit(), ElementsAre("b", "c"));
  EXPECT_THAT(parts.commit(), IsEmpty());
}

TEST(DenseEntries, WhatIsNotOfferedAnyMoreIsRemoved) {
  Parts parts;
  parts.tensors = {{"a", at::ones({4})}, {"b", at::ones({4})}};
  parts.texts = {{"record", "1"}};
  EXPECT_THAT(parts.share().removed_dense, IsEmpty());
  parts.committed();
  parts.tensors["a"] = at::Tensor();
  parts.texts.clear();
  EXPECT_THAT(parts.share().removed_dense, ElementsAre("a", "record"));
  parts.commit_failed();
  EXPECT_THAT(parts.share().removed_dense, ElementsAre("a", "record"));
  parts.committed();
  EXPECT_THAT(parts.share().removed_dense, IsEmpty());
  parts.tensors["a"] = at::ones({4});
  EXPECT_THAT(parts.commit(), ElementsAre("a"));
}

TEST(DenseEntries, AFailedCommitTakesNothingOffTheList) {
  Parts parts;
  parts.tensors = {{"a", at::ones({4})}, {"b", at::ones({4})}};
  parts.texts = {{"record", "1"}};
  parts.commit();
  parts.tensors["a"].add_(1);
  parts.texts["record"] = "2";
  (void)parts.share();
  parts.commit_failed();
  // That commit may be in the store after all: the text of before is no longer known to be there.
  parts.texts["record"] = "1";
  const storage::CommitRequest next = parts.share();
  EXPECT_THAT(Parts::names_in(next), ElementsAre("a", "record"));
  EXPECT_TRUE(same_bits(offered(next, "a"), parts.tensors["a"]));
  // A share whose end nobody told has failed.
  EXPECT_THAT(parts.commit(), ElementsAre("a", "record"));
  parts.texts["record"] = "2";
  (void)parts.share();
  parts.texts["record"] = "1";
  EXPECT_THAT(parts.commit(), ElementsAre("record"));
  EXPECT_THAT(parts.commit(), IsEmpty());
  // An entry that only the failed commit had is removed.
  parts.tensors["new"] = at::ones({1});
  (void)parts.share();
  parts.commit_failed();
  parts.tensors.erase("new");
  EXPECT_THAT(parts.share().removed_dense, ElementsAre("new"));
}

TEST(DenseEntries, WhatChangesWhileACommitIsInFlightBelongsToTheNext) {
  Parts parts;
  parts.tensors = {{"a", at::ones({4})}, {"trains", at::ones({4}).requires_grad_()}};
  const storage::CommitRequest first = parts.share();
  for (auto& [name, tensor] : parts.tensors) tensor.detach().add_(1);
  EXPECT_TRUE(same_bits(offered(first, "a"), at::ones({4})));
  EXPECT_TRUE(same_bits(offered(first, "trains"), at::ones({4})));
  parts.committed();
  const storage::CommitRequest second = parts.share();  // while the first still holds its copies
  EXPECT_TRUE(same_bits(offered(first, "a"), at::ones({4})));
  EXPECT_TRUE(same_bits(offered(second, "a"), at::full({4}, 2.0F)));
  EXPECT_TRUE(same_bits(offered(second, "trains"), at::full({4}, 2.0F)));
}

TEST(DenseEntries, ARequestOutlivesItsOwner) {
  const auto store = storage::make_memory_store();
  std::optional<Parts> parts(std::in_place);
  parts->tensors = {{"a", normal_tensor({1000}, 1)}};
  storage::CommitRequest request = parts->share();
  const at::Tensor expected = parts->tensors["a"].clone();
  parts->tensors["a"].zero_();
  parts.reset();
  request.snapshot = "not a name";
  ASSERT_FALSE(store->commit(request).ok());
  request.snapshot.clear();  // and is good for another try
  ASSERT_TRUE(store->commit_async(std::move(request)).get().ok());
  EXPECT_TRUE(same_bits(tensor_from(*store->read_dense("a"), "a"), expected));
}

TEST(DenseEntries, CopiesAreMadeInTheSameMemoryOnceItsCommitIsDone) {
  Parts parts;
  parts.tensors = {{"a", at::ones({1 << 20})}};
  const auto place = [](const storage::CommitRequest& request) {
    return value_or_throw(request.dense.at("a").pieces()).back().data();
  };
  const auto next = [&] {
    parts.tensors["a"].add_(1);
    return parts.share();
  };
  const std::byte* first = place(next());
  parts.committed();
  {
    const storage::CommitRequest held = next();
    EXPECT_EQ(place(held), first);
    parts.committed();
    EXPECT_NE(place(next()), first) << "the one before is in use";
    parts.committed();
  }
  EXPECT_EQ(parts.entries.copied_bytes(), 4 << 20);
  parts.commit();
  EXPECT_EQ(parts.entries.copied_bytes(), 0) << "nothing was copied";
}

TEST(DenseEntries, NoOptimizerLosesWhatWasTrained) {
  Parts parts;
  const at::Tensor x = at::ones({4}).requires_grad_();
  parts.tensors = {{"x", x}};
  parts.commit();
  EXPECT_THAT(parts.commit(), IsEmpty());
  torch::optim::SGD sgd({x}, 0.1);
  const auto version = x._version();
  sgd.zero_grad();
  x.sum().backward();
  sgd.step();
  sgd.zero_grad();
  ASSERT_EQ(x._version(), version) << "torch counts it now";
  EXPECT_THAT(parts.commit(), ElementsAre("x"));
  EXPECT_THAT(parts.commit(), IsEmpty());
  // Frozen: its copy is needed no more.
  const at::Tensor frozen = x.requires_grad_(false);
  EXPECT_THAT(parts.commit(), IsEmpty());
  EXPECT_EQ(parts.entries.copied_bytes(), 0);
}

TEST(DenseEntries, WritesThatTorchDoesNotCountAreCountedByHand) {
  Parts parts;
  const at::Tensor m = at::ones({4});
  parts.tensors = {{"m", m}};
  parts.commit();
  m.mutable_data_ptr<float>()[0] = 5;
  count_write(m);
  EXPECT_THAT(parts.commit(), ElementsAre("m"));
  EXPECT_THAT(parts.commit(), IsEmpty());
}

TEST(DenseEntries, WhatWasLoadedIsNotOffered) {
  Parts parts;
  parts.tensors = {{"a", at::ones({4})}, {"b", at::ones({4})}};
  parts.texts = {{"record", "1"}, {"other", "1"}};
  parts.entries.stored("a", parts.tensors["a"]);
  parts.entries.stored("b");
  parts.entries.stored("old");
  parts.entries.stored("record", bytes_from("1"));
  parts.entries.stored("other", bytes_from("of an earlier version"));
  parts.committed();  // of no share: nothing
  const storage::CommitRequest request = parts.share();
  EXPECT_THAT(Parts::names_in(request), ElementsAre("b", "other"));
  EXPECT_THAT(request.removed_dense, ElementsAre("old"));
}

TEST(DenseEntries, OneNameIsOneEntry) {
  storage::CommitRequest request;
  DenseEntries entries;
  DenseEntries::Offer offer = entries.offer(request);
  offer.tensor("a", at::ones({1}));
  EXPECT_THAT(message_of<Error>([&] { offer.tensor("a", at::ones({1})); }), HasSubstr("'a'"));
  EXPECT_THAT(message_of<Error>([&] { offer.bytes("a", {}); }), HasSubstr("'a'"));
  DenseEntries others;
  DenseEntries::Offer other = others.offer(request);
  EXPECT_THAT(message_of<Error>([&] { other.tensor("a", at::ones({1})); }), HasSubstr("'a'"));
  EXPECT_THAT(message_of<Error>([&] { other.bytes("a", {}); }), HasSubstr("'a'"));
}

TEST(Participants, TakePartAsOne) {
  Parts left, right;
  left.texts = {{"a", "1"}};
  right.texts = {{"b", "1"}};
  Participants both({&left, &right});
  storage::CommitRequest first, second, third;
  both.add_to_commit(first);
  EXPECT_THAT(Parts::names_in(first), ElementsAre("a", "b"));
  both.commit_failed();
  both.add_to_commit(second);
  EXPECT_THAT(Parts::names_in(second), ElementsAre("a", "b"));
  both.committed();
  both.add_to_commit(third);
  EXPECT_THAT(Parts::names_in(third), IsEmpty());
}

}  // namespace
}  // namespace perennial
