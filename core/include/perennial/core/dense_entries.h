// SPDX-License-Identifier: Apache-2.0
// DenseEntries: which dense entries of a participant the store has as they are, and which it needs.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "perennial/storage/page_store.h"

namespace perennial {

// A participant offers all its entries at each commit; those that the store has as they are cost
// nothing, and those that it does not offer any more are removed from the store:
//
//   DenseEntries::Offer offer = entries_.offer(request);
//   offer.tensor("head/b", b_);
//   offer.bytes("head", bytes_from(record));
//
// A tensor counts as changed when it is another one, or torch counted an operation in place on it.
// What torch does not count must be counted by who does it (count_write()): writing through a
// pointer, torch's fused optimizers, the running statistics of torch's batch norm. One exception,
// because no optimizer of torch may lose what was trained (torch::optim::SGD does not count
// either): a tensor that trains is compared with its copy before it passes for unchanged.
//
// Changed tensors are copied, on several threads where they are large, into memory that is kept and
// used again by the next commit that needs it: once its own commit is done, else there are two. So
// it takes as many bytes as the last commit copied, and the first copy is slower than the others.
// The store's thread reads the copies; a request holds its own, whatever becomes of this object.
//
// Single-threaded. Copies share the memory until either needs it.
class DenseEntries {
 public:
  // A share of one commit; entries that were not named by its end are removed. One at a time.
  class Offer {
   public:
    ~Offer();
    Offer(const Offer&) = delete;
    Offer& operator=(const Offer&) = delete;

    // Throws Error for a name that was offered before, and as bytes_from(tensor). An undefined
    // tensor is no entry. Cost: nothing, or a copy.
    void tensor(const std::string& name, const at::Tensor& tensor);
    // Small ones: whether they changed is told by their digest.
    void bytes(const std::string& name, storage::Bytes bytes);

   private:
    friend class DenseEntries;
    Offer(DenseEntries& entries, storage::CommitRequest& request)
        : entries_(entries), request_(request) {}
    DenseEntries& entries_;
    storage::CommitRequest& request_;
  };

  // Begins a share. One before it that was neither committed() nor commit_failed() has failed.
  Offer offer(storage::CommitRequest& request);
  // As Participant's.
  void committed();
  void commit_failed();

  // When loading: the store has this entry, exactly this tensor or these bytes of it, or something.
  void stored(const std::string& name, const at::Tensor& tensor);
  void stored(const std::string& name, const storage::Bytes& bytes);
  void stored(const std::string& name) { entries_[name].exists = true; }

  // Bytes of the copies that are kept.
  std::int64_t copied_bytes() const;

 private:
  class Copy;
  // What an entry is or was: equal marks, equal bytes.
  struct Mark {
    at::Tensor tensor;     // kept, so that no other one gets its place
    c10::Storage storage;  // of then: set_data() gives a tensor another one
    std::int64_t version = 0;
    std::optional<storage::Digest> digest;  // of bytes
  };
  struct Entry {
    std::optional<Mark> stored;   // what the store has; empty: it may be anything
    std::optional<Mark> offered;  // what the open share gives it; empty: nothing
    bool exists = false;          // in the store, or may be
    bool named = false;           // in the open share
    std::shared_ptr<Copy> copy;   // of a tensor, as it was last offered
  };

  Entry& name(const std::string& name);
  static Mark mark_of(const at::Tensor& tensor);
  static bool unchanged(const Entry& entry, const Mark& now);

  std::map<std::string, Entry> entries_;
  bool open_ = false;  // a share whose end is not known
};

// Counts a write to a tensor that torch does not count.
void count_write(const at::Tensor& tensor);

}  // namespace perennial
