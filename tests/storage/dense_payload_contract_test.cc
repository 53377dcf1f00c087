// SPDX-License-Identifier: Apache-2.0
// Dense entries whose bytes come from functions, over every implementation of PageStore.
#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "store_contract.h"

namespace perennial::storage::testing {
namespace {

class DensePayloadContract : public StoreContract {
 protected:
  // `bytes` cut after each of `sizes` in turn, kept by the payload itself.
  static DensePayload in_pieces(Bytes bytes, const std::vector<std::size_t>& sizes) {
    const std::size_t size = bytes.size();
    auto held = std::make_shared<const Bytes>(std::move(bytes));
    return {size, [held, sizes]() -> Result<Pieces> {
              Pieces pieces;
              std::span<const std::byte> rest(*held);
              for (std::size_t i = 0; !rest.empty(); i = (i + 1) % sizes.size()) {
                const std::size_t taken = std::min(sizes[i], rest.size());
                pieces.push_back(rest.first(taken));
                rest = rest.subspan(taken);
              }
              return pieces;
            }};
  }
};
INSTANTIATE_TEST_SUITE_P(Stores, DensePayloadContract, all_stores(), store_name);

constexpr std::size_t kChunk = 262'144;

TEST_P(DensePayloadContract, PiecesAreStoredAsTheSameBytesInOnePiece) {
  const std::vector<std::vector<std::size_t>> cuts = {
      {1'000'000}, {kChunk}, {kChunk - 1}, {kChunk + 1}, {40, 1'000'000}, {0, 7, 99'999}};
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, kChunk, 3 * kChunk + 5}) {
    for (const auto& cut : cuts) {
      const Bytes bytes = bytes_of(size, size);
      const auto plain = make_memory_store();
      CommitRequest whole, pieces;
      whole.dense["d"] = bytes;
      pieces.dense["d"] = in_pieces(bytes, cut);
      EXPECT_EQ(*pieces.dense.at("d").bytes(), bytes);
      const Result<CommitInfo> expected = plain->commit(whole);
      const Result<CommitInfo> info = store->commit(pieces);
      ASSERT_TRUE(info.ok()) << info.status().to_string();
      EXPECT_EQ(info->state_digest, expected->state_digest);
      EXPECT_EQ(*store->read_dense("d"), bytes);
      const Result<CommitInfo> again = store->commit(whole);
      EXPECT_EQ(again->bytes_written, 0u) << "other chunks than those of one piece";
    }
  }
  reopen();
  EXPECT_EQ(*store->read_dense("d"), bytes_of(3 * kChunk + 5, 3 * kChunk + 5));
}

TEST_P(DensePayloadContract, AFunctionIsCalledOnceOnTheThreadThatBuildsTheFile) {
  std::vector<std::string> asked;
  std::thread::id thread;
  const auto give = [&](std::string name) {
    return DensePayload(5, [&asked, &thread, name, held = Bytes(5)]() -> Result<Pieces> {
      asked.push_back(name);
      thread = std::this_thread::get_id();
      return Pieces{held};
    });
  };
  CommitRequest request;
  for (const char* name : {"b", "c", "a"}) request.dense[name] = give(name);
  ASSERT_TRUE(store->commit(request).ok());
  EXPECT_EQ(asked, (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(thread, std::this_thread::get_id());
  asked.clear();
  ASSERT_TRUE(store->commit_async(std::move(request)).get().ok());
  EXPECT_EQ(asked, (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_NE(thread, std::this_thread::get_id());
}

TEST_P(DensePayloadContract, WhatARequestHoldsLivesUntilTheCommitIsDoneAndNoLonger) {
  auto held = std::make_shared<Bytes>(bytes_of(1, kChunk + 1));
  const std::weak_ptr<Bytes> watched = held;
  CommitRequest request;
  request.dense["d"] = {held->size(), [held]() -> Result<Pieces> { return Pieces{*held}; }};
  request.pages = {
      {weights(1, 0), shape_of(4, 16), [watched]() -> Result<std::span<const std::byte>> {
         static const Bytes page(256);
         if (watched.expired()) return Status(StatusCode::io_error, "let go early");
         return std::span<const std::byte>(page);
       }}};
  auto future = store->commit_async(std::move(request));
  held.reset();
  future.wait();
  EXPECT_TRUE(watched.expired());
  EXPECT_TRUE(future.get().ok());
  EXPECT_EQ(*store->read_dense("d"), bytes_of(1, kChunk + 1));
}

TEST_P(DensePayloadContract, AFailingFunctionFailsTheCommitAndLosesNothing) {
  Change first(model);
  commit(first.page(weights(1, 0), 1).dense("d", bytes_of(1, kChunk + 9)));
  int calls = 0;
  CommitRequest request;
  request.dense["c"] = bytes_of(2, 1000);
  request.dense["d"] = {9, [&]() -> Result<Pieces> {
                          static const Bytes held = bytes_of(3, 9);
                          ++calls;
                          if (calls == 1) return Status(StatusCode::io_error, "the tensor is gone");
                          if (calls == 2) throw std::runtime_error("thrown");
                          if (calls == 3) return Pieces{std::span(held).first(8)};
                          return Pieces{held};
                        }};
  const auto failed = store->commit(request);
  EXPECT_EQ(failed.status().code(), StatusCode::io_error);
  EXPECT_THAT(failed.status().message(), ::testing::HasSubstr("'d': the tensor is gone"));
  EXPECT_EQ(difference(*store, model), "");
  EXPECT_THROW((void)store->commit_async(request).get(), std::runtime_error);
  EXPECT_EQ(difference(*store, model), "");
  const auto shorter = store->commit(request);
  EXPECT_EQ(shorter.status().code(), StatusCode::invalid_argument);
  EXPECT_THAT(shorter.status().message(), ::testing::HasSubstr("'d': expected 9 bytes"));
  EXPECT_EQ(difference(*store, model), "");
  // The same request again.
  const auto info = store->commit(request);
  ASSERT_TRUE(info.ok()) << info.status().to_string();
  EXPECT_EQ(info->commit, 2u);
  model.dense["c"] = bytes_of(2, 1000);
  model.dense["d"] = bytes_of(3, 9);
  reopen();
  EXPECT_EQ(difference(*store, model), "");
}

TEST_P(DensePayloadContract, WhatNeedsNoBytesIsRefusedInTheCall) {
  bool called = false;
  const DensePayload asks(1, [&called]() -> Result<Pieces> {
    called = true;
    return Status(StatusCode::io_error, "asked");
  });
  for (const std::string& name : {std::string(), std::string(256, 'x'), std::string("none")}) {
    CommitRequest request;
    request.dense["a"] = asks;
    request.dense[name] = name == "none" ? DensePayload(1, nullptr) : asks;
    auto future = store->commit_async(std::move(request));
    ASSERT_EQ(future.wait_for(std::chrono::seconds(0)), std::future_status::ready) << name;
    EXPECT_EQ(future.get().status().code(), StatusCode::invalid_argument) << name;
  }
  EXPECT_FALSE(called);
}

TEST_P(DensePayloadContract, AnEntryMayBeLargerThanMemory) {
  constexpr std::uint64_t kPieces = std::uint64_t{1} << 12;  // of 1 MiB: 4 GiB
  CommitRequest request;
  request.dense["huge"] = {
      kPieces * (4 * kChunk) + 7,
      [block = bytes_of(1, 4 * kChunk), tail = bytes_of(2, 7)]() -> Result<Pieces> {
        Pieces pieces(kPieces, std::span<const std::byte>(block));
        pieces.emplace_back(tail);
        return pieces;
      }};
  const Result<CommitInfo> info = store->commit(request);
  ASSERT_TRUE(info.ok()) << info.status().to_string();
  EXPECT_EQ(info->bytes_written, 4 * kChunk + 7) << "equal chunks are written once";
  reopen();
  EXPECT_EQ(*store->dense_size("huge"), kPieces * (4 * kChunk) + 7);
}

}  // namespace
}  // namespace perennial::storage::testing
