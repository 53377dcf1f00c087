// SPDX-License-Identifier: Apache-2.0
// How fast is each CUDA kernel beside what the device's memory can do? Prints one row a kernel and
// cell: median time by CUDA events, bytes of the roofline (each different expert once, and the
// tokens' tensors), gross bytes (each use), FLOP/s, and the share of the pace at which random rows
// of the same size are read in the same run. Needs no torch; it cannot say how eager LibTorch does.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <unordered_set>
#include <vector>

#include "perennial/kernels/cuda/experts.h"
#include "perennial/kernels/cuda/optimizer.h"
#include "perennial/kernels/cuda/retrieve.h"

namespace {

using namespace perennial::kernels;

constexpr std::int64_t kHeads = 8, kTopK = 16, kSlots = kHeads * kTopK, kSubDim = 64;
constexpr int kSkipped = 77;
constexpr std::uint32_t kTile = 8;
constexpr int kSets = 4;  // of ids, in turn, so that small batches do not find theirs in the cache

void check(int error, const char* what) {
  if (error == 0) return;
  std::fprintf(stderr, "bench_cuda: %s: %s\n", what, cuda::error_text(error));
  std::exit(1);
}

template <class T>
class Array {
 public:
  explicit Array(std::int64_t n) {
    const auto bytes = static_cast<std::size_t>(std::max<std::int64_t>(n, 1)) * sizeof(T);
    check(cudaMalloc(&memory_, bytes), "memory");
    check(cudaMemset(memory_, 0, bytes), "memory");
  }
  explicit Array(const std::vector<T>& values) : Array(static_cast<std::int64_t>(values.size())) {
    check(cudaMemcpy(memory_, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice),
          "copy");
  }
  ~Array() { cudaFree(memory_); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  T* data() const { return static_cast<T*>(memory_); }

 private:
  void* memory_ = nullptr;
};

// Noise in [-1, 1): zeros would flatter the device.
__global__ void noise_kernel(float* out, std::int64_t n, bool bf16) {
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n;
       i += std::int64_t{gridDim.x} * blockDim.x) {
    auto word = static_cast<std::uint32_t>(i) * 0x9E3779B9u;
    word = (word ^ (word >> 15)) * 0x85EBCA6Bu;
    word ^= word >> 13;
    // Of bf16 both halves are numbers of size about 1.
    out[i] = bf16 ? __uint_as_float((word & 0x807F807Fu) | 0x3F003F00u)
                  : static_cast<float>(word) * 0x1p-31f - 1.0f;
  }
}
void fill(float* out, std::int64_t n, bool bf16 = false) {
  noise_kernel<<<1024, 256>>>(out, n, bf16);
  check(cudaDeviceSynchronize(), "noise");
}

// The ceiling: a warp reads a random row after the other.
__global__ void read_rows_kernel(const float* slab, const std::int64_t* rows, std::int64_t n,
                                 std::int64_t floats, float* out) {
  const std::int64_t warp = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / 32;
  if (warp >= n) return;
  const float4* row = reinterpret_cast<const float4*>(slab + rows[warp] * floats);
  float sum = 0;
#pragma unroll 4
  for (std::int64_t i = threadIdx.x % 32; i < floats / 4; i += 32) {
    const float4 four = row[i];
    sum += four.x + four.y + four.z + four.w;
  }
  if (sum == 1.2345e30f) out[0] = sum;
}

// Median microseconds of work(i).
double time_of(const std::function<void(int)>& work) {
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin), "event");
  check(cudaEventCreate(&end), "event");
  std::vector<float> times;
  for (int i = 0; i < 3; ++i) work(i);
  for (int i = 0; i < 11; ++i) {
    check(cudaEventRecord(begin), "event");
    work(i);
    check(cudaEventRecord(end), "event");
    check(cudaEventSynchronize(end), "event");
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, begin, end), "event");
    times.push_back(milliseconds * 1000);
  }
  check(cudaEventDestroy(begin), "event");
  check(cudaEventDestroy(end), "event");
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

struct Cell {
  std::int64_t tokens, d, side;
  bool bf16;
};

void print(const char* kernel, const Cell& c, double us, double unique, double gross, double flops,
           double ceiling) {
  std::printf("| %s | %lld | %lld | %lld^2 | %s | %.1f | %.0f | %.0f | %.0f | %.2f |\n", kernel,
              static_cast<long long>(c.tokens), static_cast<long long>(c.d),
              static_cast<long long>(c.side), c.bf16 ? "bf16" : "fp32", us, unique / us / 1e3,
              gross / us / 1e3, flops / us / 1e3, ceiling > 0 ? unique / us / 1e3 / ceiling : 0.0);
}

void run(const Cell& c) {
  const ExpertLayout layout{c.d, c.d, false, 1, c.bf16 ? WeightType::bf16 : WeightType::f32};
  const std::int64_t experts = c.side * c.side, words = layout.record_floats();
  const std::int64_t uses = c.tokens * kSlots;
  const auto slab_bytes = static_cast<double>(experts * words) * 4;
  std::size_t available = 0, total = 0;
  check(cudaMemGetInfo(&available, &total), "memory");
  const double work_bytes =
      static_cast<double>(uses) * 200 + static_cast<double>(c.tokens * c.d) * 16 + 256e6;
  if (slab_bytes + work_bytes > 0.95 * static_cast<double>(available)) {
    std::printf("| all | %lld | %lld | %lld^2 | %s | does not fit: %.3g of %.3g GB | | | | |\n",
                static_cast<long long>(c.tokens), static_cast<long long>(c.d),
                static_cast<long long>(c.side), c.bf16 ? "bf16" : "fp32",
                (slab_bytes + work_bytes) / 1e9, static_cast<double>(available) / 1e9);
    return;
  }
  Array<float> slab(experts * words);
  fill(slab.data(), experts * words, c.bf16);
  const auto tiles = static_cast<std::uint32_t>((c.side + kTile - 1) / kTile);
  std::vector<float*> frames(static_cast<std::size_t>(c.side) * tiles);
  for (std::size_t p = 0; p < frames.size(); ++p) {
    frames[p] = slab.data() + static_cast<std::int64_t>(p) * kTile * words;
  }
  Array<float*> device_frames(frames);
  Array<PageSpan> spans(
      std::vector<PageSpan>{{0, static_cast<std::uint32_t>(c.side), tiles, device_frames.data()}});

  std::mt19937_64 engine(1);
  std::vector<std::int64_t> ids(static_cast<std::size_t>(uses * kSets)), rows(ids.size());
  std::unordered_set<std::int64_t> different;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    rows[i] = static_cast<std::int64_t>(engine() % static_cast<std::uint64_t>(experts));
    ids[i] = expert_id(static_cast<std::uint32_t>(rows[i] / c.side),
                       static_cast<std::uint32_t>(rows[i] % c.side));
    if (i < static_cast<std::size_t>(uses)) different.insert(rows[i]);
  }
  const auto unique = static_cast<double>(different.size());
  Array<std::int64_t> device_ids(ids), device_rows(rows);
  Array<float> x(c.tokens * c.d), dy(c.tokens * c.d), y(c.tokens * c.d), dx(c.tokens * c.d),
      weights(uses), pre(uses), coefficients(uses), dweights(uses), cu(uses), cv(uses), sink(1);
  for (const Array<float>* array : {&x, &dy}) fill(array->data(), c.tokens * c.d);
  fill(weights.data(), uses);

  const auto row_bytes = static_cast<double>(words) * 4;
  const double rows_us = time_of([&](int i) {
    read_rows_kernel<<<static_cast<unsigned>((uses + 3) / 4), 128>>>(
        slab.data(), device_rows.data() + i % kSets * uses, uses, words, sink.data());
  });
  const double ceiling = unique * row_bytes / rows_us / 1e3;
  print("read random rows", c, rows_us, unique * row_bytes, static_cast<double>(uses) * row_bytes,
        0, ceiling);

  cuda::ExpertArgs args;
  args.layout = layout;
  args.frames = {spans.data(), kTile, words};
  args.slots = kSlots;
  args.weights = weights.data();
  args.x = x.data();
  const double tensors = static_cast<double>(c.tokens * c.d) * 8;
  const double flops = 4.0 * static_cast<double>(uses * c.d);
  const double forward = time_of([&](int i) {
    args.ids = device_ids.data() + i % kSets * uses;
    check(cuda::experts_forward(args, c.tokens, coefficients.data(), y.data(), pre.data(), nullptr,
                                nullptr),
          "forward");
  });
  print("experts forward", c, forward, unique * row_bytes + tensors,
        static_cast<double>(uses) * row_bytes + tensors, flops, ceiling);
  const double backward = time_of([&](int i) {
    args.ids = device_ids.data() + i % kSets * uses;
    check(cuda::experts_backward_tokens(args, c.tokens, pre.data(), nullptr, dy.data(), dx.data(),
                                        dweights.data(), cu.data(), cv.data(), nullptr, nullptr),
          "backward");
  });
  print("experts backward", c, backward, unique * row_bytes + tensors,
        static_cast<double>(uses) * row_bytes + tensors, flops, ceiling);

  const cuda::OpenGeneration generation{0, static_cast<std::uint32_t>(c.side),
                                        static_cast<std::uint32_t>(c.side)};
  const std::size_t bytes = cuda::group_uses_workspace(uses, generation);
  Array<unsigned char> workspace(static_cast<std::int64_t>(bytes));
  Array<std::int64_t> own(uses);
  Array<std::uint32_t> offsets(uses + 1), count(1);
  Array<Use> use(uses);
  const cuda::ExpertUses grouped{own.data(), offsets.data(), use.data(), count.data()};
  const double group = time_of([&](int i) {
    const cuda::RetrievedIds from{device_ids.data() + i % kSets * uses, uses};
    check(cuda::group_uses(&from, 1, generation, workspace.data(), bytes, grouped, nullptr),
          "group_uses");
  });
  print("group uses", c, group, 130.0 * static_cast<double>(uses), 0, 0, 0);

  // SGD, whose state does not limit the sizes that fit; bf16 would need its master.
  if (!c.bf16) {
    Array<Contribution> contributions(
        std::vector<Contribution>{{kSlots, x.data(), dy.data(), cu.data(), cv.data(), nullptr}});
    cuda::UpdateArgs update;
    update.rule.algorithm = UpdateAlgorithm::sgd;
    update.rule.lr = 1e-9;
    update.layout = layout;
    update.weights = args.frames;
    update.ids = own.data();
    update.experts = count.data();
    update.most_experts = uses;
    update.offsets = offsets.data();
    update.uses = use.data();
    update.contributions = contributions.data();
    const double us = time_of([&](int) { check(cuda::update_experts(update, nullptr), "update"); });
    print("update, sgd", c, us, 2 * unique * row_bytes + tensors,
          2 * unique * row_bytes + static_cast<double>(uses) * row_bytes,
          4.0 * static_cast<double>(uses * c.d), ceiling);
  }

  Array<float> query(c.tokens * kHeads * 2 * kSubDim), keys(2 * kHeads * c.side * kSubDim);
  fill(query.data(), c.tokens * kHeads * 2 * kSubDim);
  fill(keys.data(), 2 * kHeads * c.side * kSubDim);
  const KeySegment segment{0, c.side, c.side, 0};
  Array<KeySegment> device_segment(std::vector<KeySegment>{segment});
  Array<float> scores(uses);
  Array<std::int32_t> row_index(uses);
  cuda::RetrieveArgs retrieval;
  retrieval.heads = kHeads;
  retrieval.k = kTopK;
  retrieval.sub_dim = kSubDim;
  retrieval.query = query.data();
  retrieval.rows = {c.side, true, keys.data()};
  retrieval.cols = {c.side, true, keys.data() + kHeads * c.side * kSubDim};
  retrieval.segments = &segment;
  retrieval.device_segments = device_segment.data();
  retrieval.segment_count = 1;
  retrieval.ids = own.data();
  retrieval.scores = scores.data();
  retrieval.row_index = row_index.data();
  const std::size_t need = cuda::retrieve_workspace(retrieval, c.tokens);
  Array<unsigned char> room(static_cast<std::int64_t>(need));
  const double found = time_of([&](int) {
    check(cuda::retrieve(retrieval, c.tokens, room.data(), need, nullptr), "retrieve");
  });
  print("retrieval", c, found,
        static_cast<double>(c.tokens * kHeads * 2 * kSubDim + 2 * kHeads * c.side * kSubDim) * 4 +
            static_cast<double>(uses) * 16,
        0, 4.0 * static_cast<double>(c.tokens * kHeads * c.side * kSubDim), 0);
}

}  // namespace

int main(int argc, char** argv) {
  int devices = 0;
  const int error = cuda::device_count(&devices);
  if (error != 0 || devices == 0) {
    std::printf("SKIPPED: no CUDA device: %s\n", cuda::error_text(error));
    return kSkipped;
  }
  const bool smoke = argc > 1 && std::strcmp(argv[1], "--smoke") == 0;
  cudaDeviceProp device;
  check(cudaGetDeviceProperties(&device, 0), "device");
  int driver = 0;
  check(cudaDriverGetVersion(&driver), "driver");
  std::printf("%s, driver for CUDA %d.%d, H %lld, K %lld, sub-keys of %lld\n\n", device.name,
              driver / 1000, driver % 1000 / 10, static_cast<long long>(kHeads),
              static_cast<long long>(kTopK), static_cast<long long>(kSubDim));
  const std::int64_t copied = smoke ? 1 << 20 : 1 << 30;
  {
    Array<unsigned char> from(copied), to(copied);
    const double us = time_of([&](int) {
      check(cudaMemcpyAsync(to.data(), from.data(), static_cast<std::size_t>(copied),
                            cudaMemcpyDeviceToDevice, nullptr),
            "copy");
    });
    std::printf("copy, read + written: %.0f GB/s\n\n",
                2.0 * static_cast<double>(copied) / us / 1e3);
  }
  std::printf(
      "| kernel | tokens | d | N | weights | us | GB/s | GB/s gross | GFLOP/s | of random rows |\n"
      "|---|---:|---:|---:|---|---:|---:|---:|---:|---:|\n");
  const std::vector<std::int64_t> all_tokens = {1, 64, 4096, 16384}, all_d = {256, 512, 1024, 2048},
                                  all_sides = {128, 512, 1024, 2048};
  for (const std::int64_t tokens : all_tokens) {
    for (const std::int64_t d : all_d) {
      for (const std::int64_t side : all_sides) {
        for (const bool bf16 : {false, true}) {
          if (!smoke || (tokens == 64 && d == 256 && side == 128)) run({tokens, d, side, bf16});
        }
      }
    }
  }
  return 0;
}
