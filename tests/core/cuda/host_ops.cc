// SPDX-License-Identifier: Apache-2.0
// The stand-in device for LibTorch: guard, hooks, and operators, which are the CPU's on copies.
#include <ATen/EmptyTensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_local_scalar_dense_native.h>
#include <ATen/ops/_native_batch_norm_legit.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/copy_native.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <set>
#include <string>
#include <utility>

#include "host_device.h"

namespace perennial::cuda {

namespace {

using c10::DeviceType;
using c10::DispatchKey;

constexpr DeviceType kType = DeviceType::PrivateUse1;

c10::Stream only_stream() { return c10::Stream(c10::Stream::DEFAULT, fake_device()); }

// One device, one stream: events come when they are recorded.
class FakeGuard final : public c10::impl::DeviceGuardImplInterface {
 public:
  DeviceType type() const override { return kType; }
  c10::Device exchangeDevice(c10::Device to) const override {
    setDevice(to);
    return fake_device();
  }
  c10::Device getDevice() const override { return fake_device(); }
  void setDevice(c10::Device to) const override {
    TORCH_CHECK(to.index() <= 0, "there is no device ", to);
  }
  void uncheckedSetDevice(c10::Device /*to*/) const noexcept override {}
  c10::Stream getStream(c10::Device /*of*/) const override { return only_stream(); }
  c10::Stream getDefaultStream(c10::Device /*of*/) const override { return only_stream(); }
  c10::Stream exchangeStream(c10::Stream /*to*/) const override { return only_stream(); }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void** /*event*/, const c10::Stream& /*stream*/, c10::DeviceIndex /*device*/,
              c10::EventFlag /*flag*/) const override {}
  void block(void* /*event*/, const c10::Stream& /*stream*/) const override {}
  bool queryEvent(void* /*event*/) const override { return true; }
  bool queryStream(const c10::Stream& /*stream*/) const override { return true; }
  void synchronizeStream(const c10::Stream& /*stream*/) const override { synchronize(); }
  void synchronizeEvent(void* /*event*/) const override { synchronize(); }
  void synchronizeDevice(c10::DeviceIndex /*device*/) const override { synchronize(); }

 private:
  static void synchronize() {
    ++host_device().waits;
    const DeviceAccess access;
  }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, FakeGuard)

struct FakeHooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex /*index*/) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  void setCurrentDevice(c10::DeviceIndex /*index*/) const override {}
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex /*index*/) const override { return 0; }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex /*index*/) const override { return 0; }
  c10::Allocator* getPinnedMemoryAllocator() const override { return c10::GetCPUAllocator(); }
  at::Device getDeviceFromPtr(void* /*p*/) const override { return fake_device(); }
};

const bool ready = [] {
  c10::register_privateuse1_backend("fake");
  at::RegisterPrivateUse1HooksInterface(new FakeHooks);
  return true;
}();

// The memory of a tensor of the device, as the CPU's; for use with a DeviceAccess.
at::Tensor as_host(const at::Tensor& t) {
  if (t.is_cpu()) return t.detach();
  return at::from_blob(t.unsafeGetTensorImpl()->mutable_data(), t.sizes(), t.strides(),
                       t.options().device(at::kCPU).requires_grad(false));
}

at::Tensor empty(at::IntArrayRef sizes, std::optional<at::ScalarType> type,
                 std::optional<at::Layout> /*layout*/, std::optional<at::Device> /*device*/,
                 std::optional<bool> pinned, std::optional<at::MemoryFormat> format) {
  TORCH_CHECK(!pinned.value_or(false), "Only dense CPU tensors can be pinned");
  return at::detail::empty_generic(sizes, c10::GetAllocator(kType),
                                   c10::DispatchKeySet(DispatchKey::PrivateUse1),
                                   c10::dtype_or_default(type), format);
}

at::Tensor empty_strided(at::IntArrayRef sizes, at::IntArrayRef strides,
                         std::optional<at::ScalarType> type, std::optional<at::Layout> /*layout*/,
                         std::optional<at::Device> /*device*/, std::optional<bool> pinned) {
  TORCH_CHECK(!pinned.value_or(false), "Only dense CPU tensors can be pinned");
  return at::detail::empty_strided_generic(sizes, strides, c10::GetAllocator(kType),
                                           c10::DispatchKeySet(DispatchKey::PrivateUse1),
                                           c10::dtype_or_default(type));
}

thread_local bool in_operator = false;  // its copies are not the caller's

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  const auto copy = [](const at::Tensor& source, const at::Tensor& target) {
    const at::NoGradGuard no_grad;
    const DeviceAccess access;
    at::Tensor host = as_host(target);
    at::native::copy_(host, as_host(source), false);
  };
  const bool of_host = from.is_cpu() || to.is_cpu();
  if (non_blocking && of_host) {
    queue_on_device([copy, from = from.detach(), to = to.detach()] { copy(from, to); });
    return to;
  }
  if (of_host && !in_operator) ++host_device().waits;
  copy(from, to);
  return to;
}

at::Tensor copy_from_and_resize(const at::Tensor& from, const at::Tensor& to) {
  if (from.sizes() != to.sizes()) to.resize_(from.sizes());
  return copy_from(from, to, false);
}

at::Scalar local_scalar(const at::Tensor& self) {
  if (!in_operator) ++host_device().waits;
  const DeviceAccess access;
  return at::native::_local_scalar_dense_cpu(as_host(self));
}

const at::Tensor& resize(const at::Tensor& self, at::IntArrayRef sizes,
                         std::optional<at::MemoryFormat> format) {
  const DeviceAccess access;
  return at::native::resize_(self, sizes, format);
}

// The schema does not say that it writes the running statistics; this one's does.
std::tuple<at::Tensor, at::Tensor, at::Tensor> batch_norm(
    const at::Tensor& input, const std::optional<at::Tensor>& weight,
    const std::optional<at::Tensor>& bias, const std::optional<at::Tensor>& mean,
    const std::optional<at::Tensor>& var, bool training, double momentum, double eps) {
  if (!mean || !mean->defined()) {
    return at::_native_batch_norm_legit(input, weight, bias, training, momentum, eps);
  }
  at::Tensor running_mean = mean.value(), running_var = var.value();
  return at::_native_batch_norm_legit(input, weight, bias, running_mean, running_var, training,
                                      momentum, eps);
}

bool compatible(const at::Tensor& self, const at::Tensor& from) {
  return self.layout() == at::kStrided && from.layout() == at::kStrided;
}

bool takes_host_indices(const std::string& name) {
  static const std::set<std::string> names = {"aten::index", "aten::index_put_", "aten::index_put",
                                              "aten::_index_put_impl_", "aten::_unsafe_index"};
  return names.contains(name);
}

// Throws what CUDA throws over operands of two devices.
void check_operands(const c10::OperatorHandle& op, const torch::jit::Stack& stack) {
  const auto& arguments = op.schema().arguments();
  const std::string& name = op.schema().name();
  const std::size_t begin = stack.size() - arguments.size();
  const auto refuse = [&](std::size_t i, const at::Tensor& tensor) {
    TORCH_CHECK(false, "Expected all tensors to be on the same device, but argument '",
                arguments[i].name(), "' of ", name, " is on ", tensor.device(), " and not on ",
                fake_device());
  };
  const auto elsewhere = [](const at::Tensor& t) {
    return t.defined() && t.device() != fake_device();
  };
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const c10::IValue& value = stack[begin + i];
    const c10::AliasInfo* const alias = arguments[i].alias_info();
    const bool written = alias != nullptr && alias->isWrite();
    if (value.isTensor()) {
      const at::Tensor& tensor = value.toTensor();
      const bool number = tensor.defined() && tensor.is_cpu() && tensor.dim() == 0 && !written;
      if (elsewhere(tensor) && !number) refuse(i, tensor);
    } else if (value.isTensorList()) {
      for (const at::Tensor& tensor : value.toTensorVector()) {
        if (elsewhere(tensor)) refuse(i, tensor);
      }
    } else if (value.isOptionalTensorList()) {
      if (takes_host_indices(name)) continue;
      for (const auto& tensor : value.toOptionalTensorVector()) {
        if (tensor && elsewhere(*tensor)) refuse(i, *tensor);
      }
    } else if (value.isGenerator()) {
      TORCH_CHECK(value.toGenerator().device() == fake_device(), "Expected a '", fake_device(),
                  "' device type for generator but found '", value.toGenerator().device(), "'");
    }
  }
}

void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  check_operands(op, *stack);
  const bool outer = std::exchange(in_operator, true);
  const struct Restore {
    bool to;
    ~Restore() { in_operator = to; }
  } restore{outer};
  at::native::cpu_fallback(op, stack, /*error_on_views=*/true);
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("as_strided", &at::native::as_strided_tensorimpl);
  m.impl("view", &at::native::view);
  m.impl("unfold", &at::native::unfold);
  m.impl("_reshape_alias", &at::native::_reshape_alias);
  m.impl("resize_", &resize);
  m.impl("set_.source_Tensor", &at::native::set_tensor_);
  m.impl("set_.source_Storage",
         static_cast<at::Tensor& (*)(at::Tensor&, at::Storage)>(&at::native::set_));
  m.impl("set_.source_Storage_storage_offset", &at::native::set_storage_cpu_);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("_local_scalar_dense", &local_scalar);
  m.impl("native_batch_norm", &batch_norm);
  m.impl("_has_compatible_shallow_copy_type", &compatible);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>());
}

// What mixed precision does to the dense layers on CUDA.
TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) { m.fallback(torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
  KERNEL_PRIVATEUSEONE(linear, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(matmul, lower_precision_fp)
}

}  // namespace

at::Device fake_device() { return {kType, 0}; }

}  // namespace perennial::cuda
