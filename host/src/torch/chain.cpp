// A training step of linear layers and activations one after another, without an autograd graph. The rules of shim.cpp apply.
//
// Each kernel is the one that autograd would come to, libtorch's or ours (fused.cpp), on the same values and in the same order, so that the bits are the same;
// what is left out is the dispatcher, the graph, and the allocation of what lies between the layers.

#include "fused.h"
#include "guarded.h"
#include "products.h"

#include <ATen/EmptyTensor.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_log_softmax_backward_data_cpu_dispatch.h>
#include <ATen/ops/_log_softmax_cpu_dispatch.h>
#include <ATen/ops/clamp_min_cpu_dispatch.h>
#include <ATen/ops/gelu_backward_cpu_dispatch.h>
#include <ATen/ops/gelu_cpu_dispatch.h>
#include <ATen/ops/mse_loss_backward_cpu_dispatch.h>
#include <ATen/ops/mse_loss_cpu_dispatch.h>
#include <ATen/ops/nll_loss_backward_cpu_dispatch.h>
#include <ATen/ops/nll_loss_forward_cpu_dispatch.h>
#include <ATen/ops/sigmoid_backward_cpu_dispatch.h>
#include <ATen/ops/sigmoid_cpu_dispatch.h>
#include <ATen/ops/silu_backward_cpu_dispatch.h>
#include <ATen/ops/silu_cpu_dispatch.h>
#include <ATen/ops/sum_cpu_dispatch.h>
#include <ATen/ops/tanh_backward_cpu_dispatch.h>
#include <ATen/ops/tanh_cpu_dispatch.h>
#include <ATen/ops/threshold_backward_cpu_dispatch.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace {

// The numbers are those of chain.rs.
enum class Kind : int { kLinear, kRelu, kGelu, kGeluTanh, kTanh, kSigmoid, kSilu };
enum class Loss : int { kCrossEntropy, kMse };

constexpr std::int64_t kMean = 1;
constexpr std::int64_t kIgnoreIndex = -100;

at::Tensor empty(at::IntArrayRef shape) { return at::detail::empty_cpu(shape, at::kFloat); }

c10::string_view approximation(Kind kind) { return kind == Kind::kGeluTanh ? "tanh" : "none"; }

struct Layer {
  Kind kind;
  // Of a linear layer: the parameters, and views of the weight without autograd, as it lies and the other way round.
  at::Tensor weight, bias;
  at::Tensor rows, columns;
  // Reused as long as nobody else holds them.
  at::Tensor weight_gradient, bias_gradient;
};

// What lies between the layers, for one size of batch.
struct Between {
  std::int64_t batch = -1;
  // The value of each layer but the last.
  std::vector<at::Tensor> values;
  // The gradient of each layer's value; that of an activation's input takes the place of its value's.
  std::vector<at::Tensor> gradients;
  // Of a GELU that is computed by a kernel of ours.
  std::vector<at::Tensor> derivatives;
  at::Tensor log_probabilities;
};

// A gradient that nobody else holds, as a new one or the last step's.
at::Tensor& own(at::Tensor& gradient, at::IntArrayRef shape) {
  if (!gradient.defined() || gradient.use_count() > 1 || gradient.storage().use_count() > 1) {
    gradient = empty(shape);
  }
  return gradient;
}

}  // namespace

extern "C" {

struct HostChain {
  std::vector<Layer> layers;
  Loss loss;
  at::Tensor one;
  // That of whole batches, and that of an epoch's last.
  Between between[2];
};

}  // extern "C"

namespace {

Between& prepared(HostChain& chain, const at::Tensor& inputs) {
  const std::int64_t batch = inputs.size(0);
  for (Between& between : chain.between) {
    if (between.batch == batch) {
      return between;
    }
  }
  Between& between = chain.between[1];
  std::swap(chain.between[0], between);
  between = Between{};
  between.batch = batch;
  std::int64_t width = inputs.size(1);
  for (const Layer& layer : chain.layers) {
    if (layer.kind == Kind::kLinear) {
      width = layer.rows.size(0);
      between.gradients.push_back(empty({batch, width}));
    } else {
      // As the value that it is computed from, except where that is the input.
      between.gradients.push_back(between.gradients.empty() ? empty({batch, width}) : between.gradients.back());
    }
    between.values.push_back(empty({batch, width}));
  }
  between.derivatives.resize(chain.layers.size());
  between.log_probabilities = empty({batch, width});
  between.values.pop_back();
  return between;
}

// The kernels of ours for a layer, if they compute it.
const HostFused* kernels_for(const Layer& layer, const at::Tensor& input) {
  return layer.kind == Kind::kGelu && fused_fits(input) ? fused_kernels() : nullptr;
}

void forward(const Layer& layer, const at::Tensor& input, at::Tensor& value, at::Tensor& derivative) {
  if (const HostFused* kernels = kernels_for(layer, input)) {
    if (!derivative.defined()) {
      derivative = empty(value.sizes());
    }
    fused_gelu(*kernels, input, value, derivative);
    return;
  }
  switch (layer.kind) {
    case Kind::kLinear:
      layer.bias.defined() ? product(value, layer.bias, input, layer.columns) : product(value, input, layer.columns);
      return;
    case Kind::kRelu:
      at::cpu::clamp_min_out(value, input, 0);
      return;
    case Kind::kGelu:
    case Kind::kGeluTanh:
      at::cpu::gelu_out(value, input, approximation(layer.kind));
      return;
    case Kind::kTanh:
      at::cpu::tanh_out(value, input);
      return;
    case Kind::kSigmoid:
      at::cpu::sigmoid_out(value, input);
      return;
    case Kind::kSilu:
      at::cpu::silu_out(value, input);
      return;
  }
}

// Makes the gradient of an activation's value that of its input, in place.
void backward(
    const Layer& layer,
    const at::Tensor& input,
    const at::Tensor& value,
    const at::Tensor& derivative,
    at::Tensor& gradient) {
  if (const HostFused* kernels = kernels_for(layer, input)) {
    fused_multiply(*kernels, gradient, derivative, gradient);
    return;
  }
  switch (layer.kind) {
    case Kind::kLinear:
      return;
    case Kind::kRelu:
      at::cpu::threshold_backward_out(gradient, gradient, value, 0);
      return;
    case Kind::kGelu:
    case Kind::kGeluTanh:
      at::cpu::gelu_backward_out(gradient, gradient, input, approximation(layer.kind));
      return;
    case Kind::kTanh:
      at::cpu::tanh_backward_out(gradient, gradient, value);
      return;
    case Kind::kSigmoid:
      at::cpu::sigmoid_backward_out(gradient, gradient, value);
      return;
    case Kind::kSilu:
      at::cpu::silu_backward_out(gradient, gradient, input);
      return;
  }
}

// The mean loss, and the gradient of the outputs.
at::Tensor loss_of(
    HostChain& chain,
    Between& between,
    const at::Tensor& outputs,
    const at::Tensor& targets,
    at::Tensor& gradient) {
  if (chain.loss == Loss::kMse) {
    at::Tensor loss = at::cpu::mse_loss(outputs, targets, kMean);
    at::cpu::mse_loss_backward_out(gradient, chain.one, outputs, targets, kMean);
    return loss;
  }
  if (fused_cross_entropy_fits(outputs, targets)) {
    return fused_cross_entropy(*fused_kernels(), outputs, targets, gradient);
  }
  at::Tensor& log_probabilities = between.log_probabilities;
  at::Tensor loss = empty({}), total_weight = empty({});
  at::cpu::_log_softmax_out(log_probabilities, outputs, 1, false);
  at::cpu::nll_loss_forward_out(loss, total_weight, log_probabilities, targets, {}, kMean, kIgnoreIndex);
  at::Tensor of_classes = empty(outputs.sizes());
  at::cpu::nll_loss_backward_out(
      of_classes, chain.one, log_probabilities, targets, {}, kMean, kIgnoreIndex, total_weight);
  at::cpu::_log_softmax_backward_data_out(gradient, of_classes, log_probabilities, 1, at::kFloat);
  return loss;
}

void backward_linear(Layer& layer, const at::Tensor& input, const at::Tensor& gradient) {
  if (layer.weight.requires_grad()) {
    product(own(layer.weight_gradient, layer.rows.sizes()), gradient.t(), input);
    layer.weight.mutable_grad() = layer.weight_gradient;
  }
  if (layer.bias.defined() && layer.bias.requires_grad()) {
    at::cpu::sum_out(own(layer.bias_gradient, {gradient.size(1)}), gradient, at::IntArrayRef{0});
    layer.bias.mutable_grad() = layer.bias_gradient;
  }
}

bool learns(const Layer& layer) {
  return layer.kind == Kind::kLinear &&
      (layer.weight.requires_grad() || (layer.bias.defined() && layer.bias.requires_grad()));
}

}  // namespace

extern "C" {

// A chain of layers; `kinds` and the parameters have `count` each, null where there is none.
int host_torch_chain_new(
    const int* kinds,
    const at::Tensor* const* weights,
    const at::Tensor* const* biases,
    std::size_t count,
    int loss,
    HostChain** chain) noexcept {
  return guarded([&] {
    const at::NoGradGuard no_grad;
    auto made = std::make_unique<HostChain>();
    made->loss = static_cast<Loss>(loss);
    made->one = empty({}).fill_(1);
    for (std::size_t index = 0; index < count; ++index) {
      Layer layer{};
      layer.kind = static_cast<Kind>(kinds[index]);
      if (weights[index] != nullptr) {
        layer.weight = *weights[index];
        layer.rows = layer.weight.detach();
        layer.columns = layer.rows.t();
      }
      if (biases[index] != nullptr) {
        layer.bias = *biases[index];
      }
      made->layers.push_back(std::move(layer));
    }
    *chain = made.release();
  });
}

void host_torch_chain_free(HostChain* chain) noexcept { delete chain; }

// Computes outputs and loss of a batch, `inputs` being `[batch, width]`, and the gradients of what learns, which had none.
int host_torch_chain_step(
    HostChain* chain,
    const at::Tensor* inputs,
    const at::Tensor* targets,
    at::Tensor** outputs,
    at::Tensor** loss) noexcept {
  return guarded([&] {
    // Below autograd: what the kernels call in turn records nothing either.
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    Between& between = prepared(*chain, *inputs);
    auto& layers = chain->layers;
    auto& gradients = between.gradients;
    at::Tensor last = empty(gradients.back().sizes());
    const auto value = [&](std::size_t index) -> at::Tensor& {
      return index + 1 == layers.size() ? last : between.values[index];
    };
    const auto input = [&](std::size_t index) -> const at::Tensor& { return index == 0 ? *inputs : value(index - 1); };
    for (std::size_t index = 0; index < layers.size(); ++index) {
      forward(layers[index], input(index), value(index), between.derivatives[index]);
    }
    at::Tensor mean = loss_of(*chain, between, last, *targets, gradients.back());
    std::size_t first = 0;
    while (first < layers.size() && !learns(layers[first])) {
      ++first;
    }
    for (std::size_t index = layers.size(); index-- > first;) {
      Layer& layer = layers[index];
      if (layer.kind != Kind::kLinear) {
        backward(layer, input(index), value(index), between.derivatives[index], gradients[index]);
        continue;
      }
      backward_linear(layer, input(index), gradients[index]);
      if (index == first) {
        continue;
      }
      if (input(index).numel() == 1) {
        // Autograd takes a matrix of one number for one that lies by columns, and multiplies the other way round.
        product(gradients[index - 1], layer.columns, gradients[index].t());
      } else {
        product(gradients[index - 1], gradients[index], layer.rows);
      }
    }
    *outputs = new at::Tensor(std::move(last));
    *loss = new at::Tensor(std::move(mean));
  });
}

}  // extern "C"
