// SPDX-License-Identifier: Apache-2.0
// What the parts of bench_cuda share: the device, its ceilings, timing, and the table.
#pragma once

#include <ATen/core/Tensor.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "comparison.h"
#include "cuda_cells.h"

namespace perennial::bench {

// Giga a second.
struct Ceilings {
  double copied_bytes = 0;                // read and written by a copy within the device
  double fp32_flops = 0, bf16_flops = 0;  // at::matmul, 4096 cubed
};

struct CudaRow {
  std::string kernel;
  Cell cell;
  Sample us;                            // of a call
  Work work = {};                       // of a call; 0: not told
  double random_rows = 0;               // GB/s at which this record's rows are read; 0: not of rows
  std::optional<Sample> eager_us = {};  // of eager LibTorch's call that does the same
  std::optional<double> share_target = {};  // least share of random_rows
  std::optional<double> ratio_target = {};  // least eager / ours
};

class CudaRun {
 public:
  CudaRun(const at::Device& device, bool smoke);

  const at::Device device;
  const bool smoke;
  const Ceilings& ceilings() const { return ceilings_; }

  // Microseconds of call(i), i = 0, 1, ...: medians of interleaved repetitions by CUDA events,
  // after a warm-up; one a side.
  std::vector<Sample> time(const std::vector<std::function<void(int)>>& sides) const;
  Sample time(const std::function<void(int)>& call) const { return time(std::vector{call})[0]; }
  // Whether the device has room now; says what has none, with the bytes, as a row of the table.
  bool fits(const std::string& what, const Cell& cell, double bytes);
  // Prints a row.
  void add(const CudaRow& row);
  // The table's head, once.
  void begin_table();

  const boost::json::array& rows() const { return rows_; }
  bool missed() const { return missed_; }

 private:
  void measure_ceilings();

  Ceilings ceilings_;
  boost::json::array rows_;
  bool missed_ = false;
};

// The cell that the targets are of: T 4096, d 1024, N 1024^2.
bool has_targets(const Cell& cell);

// Stops the program, naming the cell, unless the largest difference is within `tolerance` of the
// largest value.
void require_near(const char* what, const Cell& cell, const at::Tensor& ours,
                  const at::Tensor& eager, double tolerance);

void bench_experts(CudaRun& run, const Cell& cell);    // bench_cuda_experts.cc
void bench_retrieval(CudaRun& run, const Cell& cell);  // bench_cuda_retrieval.cc
void bench_layer(CudaRun& run, const Cell& cell);      // bench_cuda_layer.cc

}  // namespace perennial::bench
