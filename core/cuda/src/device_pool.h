// SPDX-License-Identifier: Apache-2.0
// A pool's experts, their optimizer state and the gradients that wait for a step, on a device.
// Symbols: B tokens, S slots a token, P uses of experts since the last step, U experts of a step.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "device_frames.h"
#include "perennial/kernels/cuda/optimizer.h"
#include "pool/expert_place.h"

namespace perennial::cuda {

// Memory on the device that grows and is kept, so that nothing is allocated on the hot path. What
// it held is lost when it grows.
class GrowingBuffer {
 public:
  explicit GrowingBuffer(const at::Device& device) : device_(device) {}
  // (bytes) uint8.
  at::Tensor bytes(std::int64_t bytes);
  template <class T>
  T* of(std::int64_t n) {
    return static_cast<T*>(bytes(n * static_cast<std::int64_t>(sizeof(T))).data_ptr());
  }

 private:
  at::Device device_;
  at::Tensor memory_;
};

// Which experts have changed is known as one bit each, on the device; a step waits for nothing and
// allocates no buffer once they have grown. See ExpertPlace for what the members promise.
//
// Streams: everything is queued on LibTorch's current stream of the moment, and what is kept here
// (pages, tables, buffers) is used again, or given back to LibTorch's allocator, in that stream's
// order. So all work on a layer belongs on one stream; who changes the current stream between two
// calls makes the new one wait for the old one first, and also before the layer goes. Autograd runs
// a backward on its forward's stream.
// Host memory: pages and records pass through one pinned buffer by copies that are waited for, so
// it can be filled again. What upload() copies comes from pinned memory of its own, which
// LibTorch's host allocator gives to nobody before the copy is done (copy_ with non_blocking
// records an event).
class DevicePool : public ExpertPlace {
 public:
  // Loads everything. Throws DeviceError when it does not fit. staging_bytes: host memory through
  // which pages and records go, more if a page needs it.
  DevicePool(Pool& pool, const at::Device& device,
             std::int64_t staging_bytes = std::int64_t{32} << 20);

  at::Device device() const override { return device_; }
  void follow() override;
  void fetch() override;
  ExpertAnswer forward(const ExpertQuestion& question) override;
  ExpertBackward backward(const ExpertQuestion& question, const ExpertAnswer& answer,
                          const at::Tensor& dy, bool wants_dx) override;
  void keep(ExpertTape::Entry entry) override;
  CompactGradient compact_gradient() override;
  void clear_gradients() override { entries_.clear(); }
  void release_gradient_memory() override {}
  at::Tensor step(const kernels::UpdateRule& rule) override;
  at::Tensor step(const kernels::UpdateRule& rule, const CompactGradient& gradient) override;

  // Scratch memory of a layer's kernels, in stream order.
  GrowingBuffer& workspace() { return workspace_; }
  const Pool& pool() const { return pool_; }

 private:
  // Of the open generation.
  struct Changes {
    std::uint32_t generation = 0;
    kernels::cuda::OpenGeneration grid;
    at::Tensor bits;   // one an expert, int32 words on the device
    bool any = false;  // a step may have set one
  };
  struct Uses {
    kernels::cuda::ExpertUses found;
    std::int64_t most = 0;  // at least U
    const kernels::Contribution* contributions = nullptr;
  };
  void load(std::uint32_t generation, storage::PageKind kind);
  std::vector<std::int64_t> changed_experts();
  Uses group();
  kernels::cuda::UpdateArgs update_args(const kernels::UpdateRule& rule);
  kernels::cuda::UpdateArgs update_args(const kernels::UpdateRule& rule, const Uses& uses);
  at::Tensor update(const kernels::cuda::UpdateArgs& args);
  at::Tensor staging(std::int64_t least);

  Pool& pool_;
  at::Device device_;
  DeviceFrames weights_;
  std::optional<DeviceFrames> state_;
  std::vector<std::uint32_t> tiles_;  // of the generations that are here
  std::optional<Changes> changes_;
  std::vector<ExpertTape::Entry> entries_;
  GrowingBuffer workspace_, ids_, offsets_, uses_, experts_, contributions_, rows_;
  std::int64_t staging_bytes_;
  at::Tensor staging_;  // host memory, kept
};

}  // namespace perennial::cuda
