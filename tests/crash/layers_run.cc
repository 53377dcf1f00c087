// SPDX-License-Identifier: Apache-2.0
// A run of a model of several layers and pools over a store, to be killed and continued:
//   layers_run STORE BUDGET THREADS
// prints the state digest once the run has ended.
#include <ATen/Parallel.h>

#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>

#include "core/layered_model.h"
#include "perennial/core/dense_state.h"
#include "perennial/storage/rocksdb_store.h"

namespace {

using namespace perennial;
using perennial::testing::LayeredModel;

constexpr int kGenerations = 3, kSteps = 24, kCommitEvery = 4;
constexpr const char* kPosition = "position";  // steps that were made

void commit(storage::PageStore& store, LayeredModel& model, int position) {
  storage::CommitRequest request;
  model.add_to_commit(request);
  request.dense[kPosition] = bytes_from(std::to_string(position));
  (void)value_or_throw(store.commit(request));
  model.committed();
}

void run(const std::filesystem::path& folder, std::int64_t budget) {
  const auto store =
      value_or_throw(storage::open_rocksdb_store(folder, {.mode = storage::OpenMode::either}));
  const bool learnt = store->dense_size(kPosition).ok();
  auto model = learnt ? LayeredModel::load(*store, budget)
                      : std::make_unique<LayeredModel>(store.get(), budget);
  int position = learnt ? std::stoi(text_from(value_or_throw(store->read_dense(kPosition)))) : 0;
  while (position < kGenerations * kSteps) {
    if (position % kSteps == 0 && position > 0 && !model->layers.open_generation()) model->grow();
    model->train(1, static_cast<std::uint64_t>(position));
    ++position;
    if (position % kSteps == 0) (void)model->layers.freeze();
    if (position % kCommitEvery == 0) commit(*store, *model, position);
  }
  if (!model->layers.frozen_intact()) throw Error("what froze has changed");
  std::cout << value_or_throw(store->head()).state_digest.hex() << std::endl;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  at::set_num_threads(std::atoi(argv[3]));
  try {
    run(argv[1], std::atoll(argv[2]));
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
    return 1;
  }
  return 0;
}
