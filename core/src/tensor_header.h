// SPDX-License-Identifier: Apache-2.0
// What the bytes of a stored tensor begin with, before its elements (dense_state.h).
#pragma once

#include <ATen/core/Tensor.h>

#include "perennial/storage/page_reader.h"

namespace perennial {

// Throws Error for a type that cannot be stored.
storage::Bytes tensor_header(const at::Tensor& tensor);

}  // namespace perennial
