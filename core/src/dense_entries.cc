// SPDX-License-Identifier: Apache-2.0
// Marks and copies of what is offered to commits.
#include "perennial/core/dense_entries.h"

#include <ATen/Parallel.h>
#include <ATen/ops/from_blob.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "perennial/core/error.h"
#include "pool/huge_pages.h"
#include "tensor_header.h"

namespace perennial {

namespace {

// Bytes that are worth a thread.
constexpr std::int64_t kCopyGrain = std::int64_t{4} << 20;

// Whether an optimizer may write to it without torch counting that.
bool trains(const at::Tensor& tensor) { return tensor.requires_grad() || tensor.grad().defined(); }

bool lies_on_host(const at::Tensor& tensor) { return tensor.is_cpu() && tensor.is_contiguous(); }

}  // namespace

// The bytes of a tensor in memory of its own.
class DenseEntries::Copy {
 public:
  explicit Copy(std::size_t bytes)
      : capacity_(bytes),
        memory_(bytes < kHugePageBytes ? static_cast<std::byte*>(std::malloc(bytes + 1))
                                       : allocate_huge_pages(bytes)) {
    if (memory_ == nullptr) throw std::bad_alloc();
  }
  Copy(const Copy&) = delete;
  Copy& operator=(const Copy&) = delete;

  bool holds(std::size_t bytes) const { return bytes == capacity_; }
  std::size_t bytes() const { return capacity_; }

  void take(const at::Tensor& tensor) {
    header_ = tensor_header(tensor);
    if (!lies_on_host(tensor)) {
      at::from_blob(memory_.get(), tensor.sizes(), tensor.options().device(at::kCPU))
          .copy_(tensor.detach());
      return;
    }
    const auto* from = static_cast<const std::byte*>(tensor.const_data_ptr());
    at::parallel_for(0, static_cast<std::int64_t>(capacity_), kCopyGrain,
                     [&](std::int64_t begin, std::int64_t end) {
                       std::memcpy(memory_.get() + begin, from + begin,
                                   static_cast<std::size_t>(end - begin));
                     });
  }
  bool equals(const at::Tensor& tensor) const {
    return lies_on_host(tensor) && tensor.nbytes() == capacity_ &&
           tensor_header(tensor) == header_ &&
           (capacity_ == 0 || std::memcmp(memory_.get(), tensor.const_data_ptr(), capacity_) == 0);
  }

  static storage::DensePayload payload(std::shared_ptr<const Copy> copy) {
    const std::uint64_t size = copy->header_.size() + copy->capacity_;
    return {size, [copy = std::move(copy)]() -> storage::Result<storage::Pieces> {
              return storage::Pieces{copy->header_, {copy->memory_.get(), copy->capacity_}};
            }};
  }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  storage::Bytes header_;
  std::size_t capacity_;
  std::unique_ptr<std::byte, Free> memory_;
};

DenseEntries::Mark DenseEntries::mark_of(const at::Tensor& tensor) {
  // Tensors made in inference mode count no versions.
  const std::int64_t version = tensor.is_inference() ? 0 : tensor._version();
  return {tensor, tensor.storage(), version, {}};
}

bool DenseEntries::unchanged(const Entry& entry, const Mark& now) {
  if (!entry.stored) return false;
  const Mark& then = *entry.stored;
  if (now.digest || then.digest) return now.digest == then.digest;
  if (!now.tensor.is_same(then.tensor) || now.version != then.version ||
      now.tensor.is_inference() || !now.storage.is_alias_of(then.storage)) {
    return false;
  }
  return !trains(now.tensor) || (entry.copy != nullptr && entry.copy->equals(now.tensor));
}

DenseEntries::Entry& DenseEntries::name(const std::string& name) {
  Entry& entry = entries_[name];
  if (entry.named) throw Error("dense entry '" + name + "' is offered twice to one commit");
  entry.named = true;
  return entry;
}

DenseEntries::Offer DenseEntries::offer(storage::CommitRequest& request) {
  commit_failed();
  for (auto& [name, entry] : entries_) entry.named = false;
  open_ = true;
  return {*this, request};
}

DenseEntries::Offer::~Offer() {
  for (auto& [name, entry] : entries_.entries_) {
    if (entry.named) continue;
    if (entry.exists) request_.removed_dense.push_back(name);
    entry.copy.reset();
  }
}

void DenseEntries::Offer::tensor(const std::string& name, const at::Tensor& tensor) {
  if (!tensor.defined()) return;
  Entry& entry = entries_.name(name);
  Mark now = mark_of(tensor);
  if (unchanged(entry, now)) {
    if (!trains(tensor)) entry.copy.reset();
    return;
  }
  // Nobody else reads it: what a commit's thread did with it came before it let it go.
  const bool free = entry.copy != nullptr && entry.copy.use_count() == 1;
  std::atomic_thread_fence(std::memory_order_acquire);
  if (!free || !entry.copy->holds(tensor.nbytes())) {
    entry.copy.reset();
    entry.copy = std::make_shared<Copy>(tensor.nbytes());
  }
  entry.copy->take(tensor);
  if (!request_.dense.emplace(name, Copy::payload(entry.copy)).second) {
    throw Error("dense entry '" + name + "' is offered by two parts of a commit");
  }
  entry.offered = std::move(now);
}

void DenseEntries::Offer::bytes(const std::string& name, storage::Bytes bytes) {
  Entry& entry = entries_.name(name);
  Mark now;
  now.digest = storage::digest_of(bytes);
  if (unchanged(entry, now)) return;
  if (!request_.dense.emplace(name, std::move(bytes)).second) {
    throw Error("dense entry '" + name + "' is offered by two parts of a commit");
  }
  entry.offered = std::move(now);
}

void DenseEntries::committed() {
  if (!std::exchange(open_, false)) return;
  std::erase_if(entries_, [](const auto& item) { return !item.second.named; });
  for (auto& [name, entry] : entries_) {
    entry.exists = true;
    if (entry.offered) entry.stored = std::exchange(entry.offered, std::nullopt);
  }
}

void DenseEntries::commit_failed() {
  if (!std::exchange(open_, false)) return;
  for (auto& [name, entry] : entries_) {
    if (!entry.offered) continue;
    // The commit may be there after all.
    entry.exists = true;
    entry.stored.reset();
    entry.offered.reset();
  }
}

void DenseEntries::stored(const std::string& name, const at::Tensor& tensor) {
  Entry& entry = entries_[name];
  entry.exists = true;
  entry.stored = mark_of(tensor);
}

void DenseEntries::stored(const std::string& name, const storage::Bytes& bytes) {
  Entry& entry = entries_[name];
  entry.exists = true;
  entry.stored = Mark{};
  entry.stored->digest = storage::digest_of(bytes);
}

std::int64_t DenseEntries::copied_bytes() const {
  std::size_t bytes = 0;
  for (const auto& [name, entry] : entries_) {
    if (entry.copy != nullptr) bytes += entry.copy->bytes();
  }
  return static_cast<std::int64_t>(bytes);
}

void count_write(const at::Tensor& tensor) {
  if (!tensor.is_inference()) tensor.unsafeGetTensorImpl()->bump_version();
}

}  // namespace perennial
