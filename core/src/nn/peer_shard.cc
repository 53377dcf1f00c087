// SPDX-License-Identifier: Apache-2.0
// Generations that enter and leave a layer as a whole: their routers.
#include "nn/router.h"
#include "perennial/core/peer.h"

namespace perennial {

void PeerImpl::require_isolated() const {
  if (options_.routing == Routing::isolated) return;
  throw Error(
      "with shared routing one router serves all generations: a generation cannot enter or leave "
      "the layer by itself");
}

PeerImpl::RouterTensors PeerImpl::router_tensors(std::uint32_t generation) const {
  require_isolated();
  const Router& router = router_of(generation);
  RouterTensors tensors;
  for (const auto& [name, tensor] : router.tensors()) {
    tensors[name.substr(router.prefix().size())] = tensor;
  }
  return tensors;
}

const Generation& PeerImpl::add_frozen(const ForeignGeneration& content,
                                       const RouterTensors& tensors) {
  require_alone("import into");
  const Generation place = pool_->next_generation(content.rows, content.cols, content.recipe);
  std::shared_ptr<Router> router = frozen_router(place, tensors);
  const Generation& added = pool_->add_frozen(content, digest_of(*router, place.index));
  append_router(std::move(router));
  return added;
}

void PeerImpl::append_router(std::shared_ptr<Router> router) {
  add_router(std::move(router));
  place_routers();
}

std::shared_ptr<Router> PeerImpl::frozen_router(const Generation& place,
                                                const RouterTensors& tensors) {
  const torch::NoGradGuard no_grad;
  require_isolated();
  const auto refuse = [](const std::string& name, const std::string& why) {
    throw DataError("the router's tensor '" + name + "' " + why);
  };
  std::shared_ptr<Router> router = new_router(place.index);
  router->add_rows(place, true);
  // Column keys came in blocks, one for each time the generation got columns.
  for (std::uint64_t cols = 0; cols < place.cols;) {
    const std::string name = Router::col_keys_name(router->col_blocks.size());
    const auto found = tensors.find(name);
    if (found == tensors.end()) refuse(name, "is missing");
    if (found->second.dim() != 3 || found->second.size(1) < 1 ||
        static_cast<std::uint64_t>(found->second.size(1)) > place.cols - cols) {
      refuse(name, "does not fit " + std::to_string(place.cols) + " columns");
    }
    cols += static_cast<std::uint64_t>(found->second.size(1));
    router->add_columns(static_cast<std::uint32_t>(cols));
  }
  router->fold_and_freeze();
  const std::vector<std::pair<std::string, torch::Tensor>> own = router->tensors();
  for (const auto& [full_name, tensor] : own) {
    const std::string name = full_name.substr(router->prefix().size());
    const auto found = tensors.find(name);
    if (found == tensors.end()) refuse(name, "is missing");
    if (found->second.sizes() != tensor.sizes() ||
        found->second.scalar_type() != tensor.scalar_type()) {
      refuse(name, "is " + std::string(c10::toString(found->second.scalar_type())) +
                       c10::str(found->second.sizes()) + ", not " +
                       c10::toString(tensor.scalar_type()) + c10::str(tensor.sizes()));
    }
  }
  if (own.size() != tensors.size()) {
    throw DataError("the router has " + std::to_string(tensors.size()) + " tensors, not " +
                    std::to_string(own.size()));
  }
  for (const auto& [full_name, tensor] : own) {
    tensor.copy_(tensors.at(full_name.substr(router->prefix().size())));
  }
  return router;
}

}  // namespace perennial
