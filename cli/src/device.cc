// SPDX-License-Identifier: Apache-2.0
// Choosing a device.
#include "device.h"

#ifdef PERENNIAL_WITH_CUDA
#include <ATen/Context.h>
#include <dlfcn.h>
#endif

#include <charconv>

#include "perennial/core/error.h"
#ifdef PERENNIAL_WITH_CUDA
#include "perennial/core/cuda.h"
#endif

namespace perennial::cli {

namespace {

#ifdef PERENNIAL_WITH_CUDA
// LibTorch's operators for CUDA, which register themselves. LibTorch must not have looked for them
// before, as it does in the first backward pass.
void load_operators() {
  if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) != nullptr) return;
  const char* const why = dlerror();
  throw DeviceError(std::string("LibTorch's CUDA library cannot be loaded: ") +
                    (why != nullptr ? why : "unknown error"));
}
#endif

// Throws DeviceError for a device that cannot be used.
continual::Placement on_cuda([[maybe_unused]] int index) {
#ifdef PERENNIAL_WITH_CUDA
  const at::Device device = cuda::require_device(index);
  load_operators();
  at::globalContext().setAllowBF16ReductionCuBLAS(false);  // as on the CPU
  return {.device = device,
          .place = [device](PeerImpl& peer) { cuda::place_on(peer, device); },
          .name = device.str() + " (" + cuda::model_of(device) + ")"};
#else
  throw DeviceError("this build has no CUDA: configure with --preset cuda");
#endif
}

// The N of "cuda:N", 0 for "cuda"; -1 for another text.
int index_in(const std::string& text) {
  if (text == "cuda") return 0;
  const std::string prefix = "cuda:";
  if (!text.starts_with(prefix)) return -1;
  int index = -1;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data() + prefix.size(), end, index);
  return error == std::errc() && rest == end ? index : -1;
}

}  // namespace

DeviceChoice choose_device(const std::string& text) {
  if (text == "cpu") return {};
  const bool automatic = text == "auto";
  const int index = automatic ? 0 : index_in(text);
  if (index < 0) {
    throw InvalidOptions("--device is '" + text + "'; it is cpu, cuda, cuda:N or auto");
  }
  try {
    DeviceChoice choice{on_cuda(index), ""};
    choice.placement.or_cpu = automatic;
    if (automatic) choice.note = "computing on " + choice.placement.name;
    return choice;
  } catch (const DeviceError& error) {
    if (!automatic) throw InvalidOptions(error.what());
    return {{}, std::string("computing on the CPU: ") + error.what()};
  }
}

}  // namespace perennial::cli
