// SPDX-License-Identifier: Apache-2.0
// Status and Result.
#include "perennial/storage/status.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>

namespace perennial::storage {
namespace {

TEST(Status, OkByDefault) {
  const Status status;
  EXPECT_TRUE(status.ok());
  EXPECT_EQ(status.to_string(), "ok");
}

TEST(Status, PrintsCodeAndMessage) {
  const Status status(StatusCode::no_space, "needs 5 bytes");
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(status.code(), StatusCode::no_space);
  EXPECT_EQ(status.message(), "needs 5 bytes");
  EXPECT_EQ(status.to_string(), "no_space: needs 5 bytes");
  EXPECT_EQ(Status(StatusCode::busy, "").to_string(), "busy");
}

TEST(Status, EveryCodeHasItsName) {
  std::set<std::string_view> names;
  for (const StatusCode code :
       {StatusCode::ok, StatusCode::not_found, StatusCode::corruption, StatusCode::version_mismatch,
        StatusCode::io_error, StatusCode::invalid_argument, StatusCode::busy,
        StatusCode::no_space}) {
    names.insert(to_string(code));
  }
  EXPECT_EQ(names.size(), 8u);
  EXPECT_FALSE(names.contains("unknown"));
}

TEST(Result, HoldsAValueOrAStatus) {
  const Result<int> value = 7;
  ASSERT_TRUE(value.ok());
  EXPECT_EQ(*value, 7);
  EXPECT_TRUE(value.status().ok());
  const Result<int> failed = Status(StatusCode::not_found, "x");
  EXPECT_FALSE(failed.ok());
  EXPECT_EQ(failed.status().code(), StatusCode::not_found);
}

TEST(Result, MovesItsValueOut) {
  Result<std::unique_ptr<int>> result = std::make_unique<int>(3);
  const std::unique_ptr<int> value = std::move(result).value();
  EXPECT_EQ(*value, 3);
}

}  // namespace
}  // namespace perennial::storage
