// SPDX-License-Identifier: Apache-2.0
// Tensors and text as the bytes of a store's dense entries.
#pragma once

#include <ATen/core/Tensor.h>

#include <boost/json/fwd.hpp>
#include <string>
#include <string_view>

#include "perennial/storage/page_store.h"

namespace perennial {

// The text's bytes, and back.
storage::Bytes bytes_from(std::string_view text);
std::string text_from(const storage::Bytes& bytes);

// The text of a record that is to be committed. Throws Error when it cannot be read back, as where
// text in it is not UTF-8: such a record must not get into a store.
std::string record_text(const boost::json::object& record);

// The digest that 32 hexadecimal digits spell; throws DataError otherwise.
storage::Digest digest_from_hex(std::string_view hex);

// Format: magic "PTEN", version (u32 = 1), dtype code (u32: 0 float32, 1 float64, 2 int64, 3
// uint8), dimensions (u32), each size (u64), then the elements in row-major order; all
// little-endian. Tensors of these dtypes only, of any device; an Error otherwise.
storage::Bytes bytes_from(const at::Tensor& tensor);
// Throws DataError naming `name` when the bytes are not such a tensor.
at::Tensor tensor_from(const storage::Bytes& bytes, std::string_view name);
// The store's entry `name`, of the sizes and the type of `like`. Throws StorageError, and DataError
// naming the entry and its `owner` ("gate") for another shape.
at::Tensor tensor_like(const storage::PageReader& store, const std::string& name,
                       const at::Tensor& like, std::string_view owner);

}  // namespace perennial
