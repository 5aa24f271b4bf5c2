// What tch does not have: optimizer kernels on tensors that the host owns, generator state, autocast for the CPU,
// deterministic algorithms, and reads without an operator dispatch.
//
// Every function that can fail returns 0, or 1 after storing a message for `host_torch_last_error` (one per thread). No
// C++ exception leaves this file. Tensors are borrowed as `at::Tensor*`, which is what tch holds; a tensor returned
// through an `at::Tensor**` belongs to the caller, who wraps it in a tch tensor.

#include "autocast.h"
#include "guarded.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_amp_foreach_non_finite_check_and_unscale.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_addcdiv.h>
#include <ATen/ops/_foreach_addcmul.h>
#include <ATen/ops/_foreach_lerp.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_foreach_sqrt.h>
#include <ATen/ops/_fused_adagrad.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <ATen/ops/elu.h>
#include <ATen/ops/full.h>
#include <ATen/ops/leaky_relu.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace {

using Tensors = std::vector<at::Tensor>;

// Device indices follow tch: -1 is the CPU, n >= 0 is CUDA device n.
at::Device device_of(int index) {
  return index < 0 ? at::Device(at::kCPU) : at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(index));
}

at::Generator default_generator(int device) {
  // The const accessor returns the process's generator of that device, creating CUDA's on first use.
  return at::globalContext().defaultGenerator(device_of(device));
}

// The gradients of those `parameters` that have one, in order.
Tensors gradients_of(const Tensors& parameters) {
  Tensors gradients;
  gradients.reserve(parameters.size());
  for (const at::Tensor& parameter : parameters) {
    const at::Tensor& gradient = parameter.grad();
    if (gradient.defined()) {
      gradients.push_back(gradient);
    }
  }
  return gradients;
}

// The entries of `all` whose parameter has a gradient; an empty list stays empty.
Tensors with_gradient(const Tensors& all, const Tensors& parameters) {
  Tensors some;
  for (size_t i = 0; i < all.size(); ++i) {
    if (parameters[i].grad().defined()) {
      some.push_back(all[i]);
    }
  }
  return some;
}

// Calls `update` with the parameters that have a gradient, the gradients, and the state of those parameters. Null state
// is an empty list.
template <size_t count, class Update>
void update_with_gradients(
    const Tensors& parameters, const std::array<const Tensors*, count>& state, Update&& update) {
  static const Tensors none;
  at::NoGradGuard no_grad;
  Tensors gradients = gradients_of(parameters);
  if (gradients.empty()) {
    return;
  }
  std::array<const Tensors*, count> lists;
  if (gradients.size() == parameters.size()) {
    for (size_t i = 0; i < count; ++i) {
      lists[i] = state[i] ? state[i] : &none;
    }
    update(parameters, gradients, lists);
    return;
  }
  std::array<Tensors, count> selected;
  for (size_t i = 0; i < count; ++i) {
    selected[i] = with_gradient(state[i] ? *state[i] : none, parameters);
    lists[i] = &selected[i];
  }
  update(with_gradient(parameters, parameters), gradients, lists);
}

void add_one(const at::Tensor& tensor) {
  if (tensor.device().is_cpu() && tensor.numel() == 1) {
    if (tensor.scalar_type() == at::kFloat) {
      *tensor.mutable_data_ptr<float>() += 1.0F;
      return;
    }
    if (tensor.scalar_type() == at::kLong) {
      *tensor.mutable_data_ptr<int64_t>() += 1;
      return;
    }
  }
  tensor.add_(1);
}

// Converts to row-major order, and the gradient back to channels last: libtorch's own operators would pass it on in
// row-major order, which the next kernels, for pooling above all, would copy back and forth.
struct RowMajor : torch::autograd::Function<RowMajor> {
  static at::Tensor forward(torch::autograd::AutogradContext*, const at::Tensor& images) {
    return images.contiguous();
  }

  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext*, const torch::autograd::variable_list& gradients) {
    return {gradients[0].contiguous(at::MemoryFormat::ChannelsLast)};
  }
};

double total_norm(const Tensors& gradients) {
  if (gradients.empty()) {
    return 0.0;
  }
  auto norms = at::_foreach_norm(gradients, 2);
  return at::linalg_vector_norm(at::stack(norms), 2).item().toDouble();
}

} // namespace

extern "C" {

const char* host_torch_last_error() noexcept {
  return last_error.c_str();
}

// ---- lists of tensors: references kept here, so that a call passes one pointer

int host_torch_tensors_new(at::Tensor* const* tensors, size_t count, Tensors** list) noexcept {
  return guarded([&] {
    auto owned = std::make_unique<Tensors>();
    owned->reserve(count);
    for (size_t i = 0; i < count; ++i) {
      owned->push_back(*tensors[i]);
    }
    *list = owned.release();
  });
}

void host_torch_tensors_free(Tensors* list) noexcept {
  delete list;
}

// ---- optimizer kernels; a parameter without a gradient is skipped, as in torch.optim

int host_torch_fused_adam(
    const Tensors* parameters,
    const Tensors* exp_avgs,
    const Tensors* exp_avg_sqs,
    const Tensors* steps,
    bool decoupled,
    double learning_rate,
    double beta1,
    double beta2,
    double weight_decay,
    double eps) noexcept {
  return guarded([&] {
    std::array<const Tensors*, 3> state{exp_avgs, exp_avg_sqs, steps};
    update_with_gradients(*parameters, state, [&](const Tensors& p, const Tensors& gradients, const auto& lists) {
      for (const at::Tensor& step : *lists[2]) {
        add_one(step);
      }
      auto update = [&](auto kernel) {
        kernel(
            p, gradients, *lists[0], *lists[1], /*max_exp_avg_sqs=*/at::TensorList(), *lists[2], learning_rate, beta1,
            beta2, weight_decay, eps, /*amsgrad=*/false, /*maximize=*/false);
      };
      if (decoupled) {
        update([](auto&&... arguments) { at::_fused_adamw_(arguments...); });
      } else {
        update([](auto&&... arguments) { at::_fused_adam_(arguments...); });
      }
    });
  });
}

// `momentum_buffers` is null when momentum is zero. A buffer that starts at zero makes the first update equal to
// PyTorch's (which copies the gradient), because dampening is zero; so no first-step flag is kept.
int host_torch_fused_sgd(
    const Tensors* parameters,
    const Tensors* momentum_buffers,
    double learning_rate,
    double momentum,
    double weight_decay,
    bool nesterov) noexcept {
  return guarded([&] {
    std::array<const Tensors*, 1> state{momentum_buffers};
    update_with_gradients(*parameters, state, [&](const Tensors& p, const Tensors& gradients, const auto& lists) {
      at::_fused_sgd_(
          p, gradients, *lists[0], weight_decay, momentum, learning_rate, /*dampening=*/0.0, nesterov,
          /*maximize=*/false, /*is_first_step=*/false);
    });
  });
}

int host_torch_fused_adagrad(
    const Tensors* parameters,
    const Tensors* sums,
    const Tensors* steps,
    double learning_rate,
    double learning_rate_decay,
    double weight_decay,
    double eps) noexcept {
  return guarded([&] {
    std::array<const Tensors*, 2> state{sums, steps};
    update_with_gradients(*parameters, state, [&](const Tensors& p, const Tensors& gradients, const auto& lists) {
      for (const at::Tensor& step : *lists[1]) {
        add_one(step);
      }
      at::_fused_adagrad_(
          p, gradients, *lists[0], *lists[1], learning_rate, learning_rate_decay, weight_decay, eps,
          /*maximize=*/false);
    });
  });
}

// There is no fused kernel. `grad_avgs` is null unless the moment is centered, `momentum_buffers` if momentum is zero.
int host_torch_rmsprop(
    const Tensors* parameters,
    const Tensors* square_avgs,
    const Tensors* grad_avgs,
    const Tensors* momentum_buffers,
    double learning_rate,
    double alpha,
    double momentum,
    double weight_decay,
    double eps) noexcept {
  return guarded([&] {
    std::array<const Tensors*, 3> state{square_avgs, grad_avgs, momentum_buffers};
    update_with_gradients(*parameters, state, [&](const Tensors& p, const Tensors& found, const auto& lists) {
      const Tensors& squares = *lists[0];
      const Tensors& means = *lists[1];
      const Tensors& buffers = *lists[2];
      Tensors gradients = weight_decay != 0.0 ? at::_foreach_add(found, p, weight_decay) : found;
      at::_foreach_mul_(squares, alpha);
      at::_foreach_addcmul_(squares, gradients, gradients, 1.0 - alpha);
      Tensors roots;
      if (means.empty()) {
        roots = at::_foreach_sqrt(squares);
      } else {
        at::_foreach_lerp_(means, gradients, 1.0 - alpha);
        roots = at::_foreach_addcmul(squares, means, means, -1.0);
        at::_foreach_sqrt_(roots);
      }
      at::_foreach_add_(roots, eps);
      if (buffers.empty()) {
        at::_foreach_addcdiv_(p, gradients, roots, -learning_rate);
      } else {
        at::_foreach_mul_(buffers, momentum);
        at::_foreach_addcdiv_(buffers, gradients, roots);
        at::_foreach_add_(p, buffers, -learning_rate);
      }
    });
  });
}

// ---- gradients

int host_torch_clear_gradients(const Tensors* parameters) noexcept {
  return guarded([&] {
    for (const at::Tensor& parameter : *parameters) {
      if (parameter.grad().defined()) {
        parameter.mutable_grad().reset();
      }
    }
  });
}

int host_torch_gradient_norm(const Tensors* parameters, double* norm) noexcept {
  return guarded([&] {
    at::NoGradGuard no_grad;
    *norm = total_norm(gradients_of(*parameters));
  });
}

int host_torch_clip_gradient_norm(const Tensors* parameters, double maximum, double* norm) noexcept {
  return guarded([&] {
    at::NoGradGuard no_grad;
    Tensors gradients = gradients_of(*parameters);
    *norm = total_norm(gradients);
    // torch.nn.utils.clip_grad_norm_ clamps this coefficient to 1; multiplying by 1 is skipped here.
    double coefficient = maximum / (*norm + 1e-6);
    if (!gradients.empty() && !(coefficient >= 1.0)) {
      at::_foreach_mul_(gradients, coefficient);
    }
  });
}

// Divides all gradients in place by `scale`, a power of two, and tells whether all of their numbers are finite.
int host_torch_unscale_gradients(const Tensors* parameters, double scale, bool* finite) noexcept {
  return guarded([&] {
    at::NoGradGuard no_grad;
    *finite = true;
    Tensors gradients = gradients_of(*parameters);
    if (gradients.empty()) {
      return;
    }
    at::TensorOptions options = at::device(gradients.front().device()).dtype(at::kFloat);
    at::Tensor found = at::zeros({}, options);
    at::_amp_foreach_non_finite_check_and_unscale_(gradients, found, at::full({}, 1.0 / scale, options));
    *finite = found.item<float>() == 0;
  });
}

// ---- random numbers

int host_torch_generator_state(int device, at::Tensor** state) noexcept {
  return guarded([&] {
    at::Generator generator = default_generator(device);
    std::lock_guard<std::mutex> lock(generator.mutex());
    *state = new at::Tensor(generator.get_state());
  });
}

int host_torch_set_generator_state(int device, const at::Tensor* state) noexcept {
  return guarded([&] {
    at::Generator generator = default_generator(device);
    std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_state(*state);
  });
}

int host_torch_generator_new(uint64_t seed, at::Generator** generator) noexcept {
  return guarded([&] { *generator = new at::Generator(at::detail::createCPUGenerator(seed)); });
}

void host_torch_generator_free(at::Generator* generator) noexcept {
  delete generator;
}

int host_torch_fill_uniform(const at::Tensor* tensor, double low, double high, const at::Generator* generator) noexcept {
  return guarded([&] {
    at::NoGradGuard no_grad;
    tensor->uniform_(low, high, *generator);
  });
}

int host_torch_fill_normal(const at::Tensor* tensor, double std, const at::Generator* generator) noexcept {
  return guarded([&] {
    at::NoGradGuard no_grad;
    tensor->normal_(0.0, std, *generator);
  });
}

// ---- operators whose attributes tch does not support

int host_torch_leaky_relu(const at::Tensor* tensor, double negative_slope, at::Tensor** output) noexcept {
  return guarded([&] { *output = new at::Tensor(at::leaky_relu(*tensor, negative_slope)); });
}

int host_torch_elu(const at::Tensor* tensor, double alpha, at::Tensor** output) noexcept {
  return guarded([&] { *output = new at::Tensor(at::elu(*tensor, alpha)); });
}

// ---- memory layout

// Null if the tensor can stay as it is: it is not an image on the CPU, or its channels are already the innermost
// dimension.
int host_torch_channels_last(const at::Tensor* tensor, at::Tensor** output) noexcept {
  return guarded([&] {
    *output = nullptr;
    if (tensor->dim() != 4 || !tensor->device().is_cpu() ||
        tensor->suggest_memory_format() == at::MemoryFormat::ChannelsLast) {
      return;
    }
    if (tensor->size(1) > 1) {
      *output = new at::Tensor(tensor->contiguous(at::MemoryFormat::ChannelsLast));
    } else if (tensor->is_contiguous() && !tensor->requires_grad()) {
      // A single channel is both innermost and outermost; the strides decide how libtorch sees it.
      const int64_t width = tensor->size(3);
      const int64_t image = tensor->size(2) * width;
      *output = new at::Tensor(tensor->as_strided(tensor->sizes(), {image, 1, width, 1}));
    }
  });
}

// Null if the tensor is already in row-major order.
int host_torch_row_major(const at::Tensor* tensor, at::Tensor** output) noexcept {
  return guarded([&] {
    *output = nullptr;
    if (tensor->is_contiguous()) {
      return;
    }
    bool is_channels_last =
        tensor->dim() == 4 && tensor->suggest_memory_format() == at::MemoryFormat::ChannelsLast;
    *output = new at::Tensor(is_channels_last ? RowMajor::apply(*tensor) : tensor->contiguous());
  });
}

// ---- global switches

// No effect unless the C library is glibc.
void host_torch_keep_freed_memory() noexcept {
#if defined(__GLIBC__)
  // glibc before 2.35 does not accept more than the second value.
  if (mallopt(M_MMAP_THRESHOLD, 1 << 30) == 0) {
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
  }
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
#endif
}

// For CUDA's matrix products and cuDNN's convolutions and recurrent layers; libtorch's default is true for the latter.
int host_torch_set_tf32(bool allowed) noexcept {
  return guarded([&] {
    at::globalContext().setAllowTF32CuBLAS(allowed);
    at::globalContext().setAllowTF32CuDNN(allowed);
  });
}

int host_torch_has_tf32(bool* allowed) noexcept {
  return guarded([&] { *allowed = at::globalContext().allowTF32CuBLAS() && at::globalContext().allowTF32CuDNN(); });
}

int host_torch_set_deterministic_algorithms(bool enabled) noexcept {
  return guarded([&] {
    at::globalContext().setDeterministicAlgorithms(enabled, /*warn_only=*/false);
    // On by default in deterministic mode, where it writes every tensor once more on allocation.
    at::globalContext().setDeterministicFillUninitializedMemory(false);
  });
}

// Turns autocast to `dtype` on, or off if it is -1. `previous` receives the value that `host_torch_autocast_leave` restores: the
// dtype, or -1 if autocast was off.
int host_torch_autocast_enter(int device, int dtype, int* previous) noexcept {
  return guarded([&] {
    at::DeviceType type = device_of(device).type();
    *previous = at::autocast::is_autocast_enabled(type) ? static_cast<int>(at::autocast::get_autocast_dtype(type)) : -1;
    if (dtype >= 0) {
      at::autocast::set_autocast_dtype(type, static_cast<at::ScalarType>(dtype));
    }
    at::autocast::set_autocast_enabled(type, dtype >= 0);
    at::autocast::increment_nesting();
  });
}

int host_torch_autocast_leave(int device, int previous) noexcept {
  return guarded([&] {
    at::DeviceType type = device_of(device).type();
    if (previous >= 0) {
      at::autocast::set_autocast_dtype(type, static_cast<at::ScalarType>(previous));
    }
    at::autocast::set_autocast_enabled(type, previous >= 0);
    // The cache holds the cast copies of the weights; they are stale after the optimizer's update.
    if (at::autocast::decrement_nesting() == 0) {
      at::autocast::clear_cache();
    }
  });
}

// ---- values

int host_torch_scalar(const at::Tensor* tensor, double* value) noexcept {
  return guarded([&] {
    if (tensor->device().is_cpu() && tensor->numel() == 1) {
      if (tensor->scalar_type() == at::kFloat) {
        *value = *tensor->const_data_ptr<float>();
        return;
      }
      if (tensor->scalar_type() == at::kDouble) {
        *value = *tensor->const_data_ptr<double>();
        return;
      }
    }
    *value = tensor->item().toDouble();
  });
}

int host_torch_backward(const at::Tensor* tensor, const at::Tensor* gradient) noexcept {
  return guarded([&] { tensor->backward(*gradient); });
}

// Drops what autograd stores with a tensor, and with it the graph that made it, unless something else holds that.
int host_torch_forget_graph(const at::Tensor* tensor) noexcept {
  return guarded([&] { tensor->unsafeGetTensorImpl()->set_autograd_meta(nullptr); });
}

int host_torch_add_one(const at::Tensor* tensor) noexcept {
  return guarded([&] {
    at::NoGradGuard no_grad;
    add_one(*tensor);
  });
}

// Null unless the tensor is on the CPU, contiguous and of that dtype. `data` is valid as long as the storage.
int host_torch_cpu_data(const at::Tensor* tensor, int dtype, bool writable, void** data, size_t* count) noexcept {
  return guarded([&] {
    *data = nullptr;
    *count = 0;
    if (tensor->defined() && tensor->layout() == at::kStrided && tensor->device().is_cpu() &&
        tensor->scalar_type() == static_cast<at::ScalarType>(dtype) && tensor->is_contiguous()) {
      *data = writable ? tensor->mutable_data_ptr() : const_cast<void*>(tensor->const_data_ptr());
      *count = static_cast<size_t>(tensor->numel());
    }
  });
}

} // extern "C"
