// Layers whose forward and backward are one pass each, by kernels of ours, on the threads that ask for it. The rules of shim.cpp
// apply.
//
// libtorch computes them operator by operator, and for other processors than this one. What is not f32, not contiguous, or within
// autocast is libtorch's, too: each function below says so by leaving `*output` null. The order of all sums is a function of the
// shapes alone.

#include "fused.h"

#include "autocast.h"
#include "guarded.h"
#include "threads.h"

#include <ATen/EmptyTensor.h>
#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <utility>

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

thread_local const HostFused* kernels_of_thread = nullptr;

// Below this many numbers, a thread takes longer to wake than to compute.
constexpr std::int64_t kLeastPerThread = 1 << 14;
// Rows whose share of a weight's gradient is summed first.
constexpr std::int64_t kRows = 64;
// Longer contexts are libtorch's, which keeps no weights.
constexpr std::int64_t kLongestContext = 256;

at::Tensor empty(at::IntArrayRef shape) { return at::detail::empty_cpu(shape, at::kFloat); }

float* data_or_null(const at::Tensor& tensor) { return tensor.defined() ? tensor.mutable_data_ptr<float>() : nullptr; }

bool learns(const at::Tensor& tensor) { return at::GradMode::is_enabled() && tensor.requires_grad(); }

// Runs a kernel over `items`, each of about `numbers` numbers, on libtorch's threads.
template <class Kernel, class Arguments>
void run(Kernel* kernel, const Arguments& arguments, std::int64_t items, std::int64_t numbers) {
  const std::int64_t most = std::min<std::int64_t>(items, at::get_num_threads());
  const std::int64_t parts = std::clamp<std::int64_t>(items * numbers / kLeastPerThread, 1, std::max<std::int64_t>(most, 1));
  on_threads(parts, [&](std::int64_t part) { kernel(&arguments, items * part / parts, items * (part + 1) / parts); });
}

// What profiles see of a layer's forward pass; autograd records the backward one.
struct Recorded {
  explicit Recorded(const char* name) : function(at::RecordScope::FUNCTION) {
    if (function.isActive()) {
      function.before(name);
    }
  }
  at::RecordFunction function;
};

// A second derivative would need the graph of what is computed below autograd.
void refuse_second_derivative(const char* layer) {
  TORCH_CHECK(
      !at::GradMode::is_enabled(),
      "`",
      layer,
      "` has no second derivative by these kernels: start a new run with `[run] kernels = \"libtorch\"`");
}

void keep_kernels(AutogradContext* context, const HostFused& kernels) {
  context->saved_data["kernels"] = reinterpret_cast<std::int64_t>(&kernels);
}

// They are static.
const HostFused& kept_kernels(AutogradContext* context) {
  return *reinterpret_cast<const HostFused*>(context->saved_data["kernels"].toInt());
}

struct Gelu : torch::autograd::Function<Gelu> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input, bool learns) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const HostFused& kernels = *fused_kernels();
    at::Tensor output = empty(input.sizes());
    const at::Tensor derivative = learns ? empty(input.sizes()) : at::Tensor();
    fused_gelu(kernels, input, output, derivative);
    keep_kernels(context, kernels);
    context->saved_data["derivative"] = derivative;
    return output;
  }

  static variable_list backward(AutogradContext* context, const variable_list& of_output) {
    refuse_second_derivative("gelu");
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const at::Tensor derivative = context->saved_data["derivative"].toTensor();
    at::Tensor gradient = empty(derivative.sizes());
    fused_multiply(kept_kernels(context), of_output[0].contiguous(), derivative, gradient);
    return {std::move(gradient), at::Tensor()};
  }
};

// Layer normalization of an input, or of the sum of two, which is then an output, too.
struct Normalization {
  static variable_list forward(
      AutogradContext* context,
      const at::Tensor& input,
      const at::Tensor& other,
      const at::Tensor& weight,
      const at::Tensor& bias,
      double eps) {
    const HostFused& kernels = *fused_kernels();
    const std::int64_t width = weight.numel(), rows = input.numel() / width;
    at::Tensor sum = other.defined() ? empty(input.sizes()) : input;
    at::Tensor output = empty(input.sizes());
    const at::Tensor mean = empty({rows}), inverse = empty({rows});
    HostLayerNorm arguments{};
    arguments.width = width;
    arguments.eps = static_cast<float>(eps);
    arguments.input = input.const_data_ptr<float>();
    if (other.defined()) {
      arguments.other = other.const_data_ptr<float>();
      arguments.sum = sum.mutable_data_ptr<float>();
    }
    arguments.weight = weight.const_data_ptr<float>();
    arguments.bias = bias.const_data_ptr<float>();
    arguments.output = output.mutable_data_ptr<float>();
    arguments.mean = mean.mutable_data_ptr<float>();
    arguments.inverse = inverse.mutable_data_ptr<float>();
    run(kernels.layer_norm, arguments, rows, width);
    keep_kernels(context, kernels);
    context->set_materialize_grads(false);
    context->save_for_backward({sum, weight});
    context->saved_data["mean"] = mean;
    context->saved_data["inverse"] = inverse;
    return other.defined() ? variable_list{output, sum} : variable_list{output};
  }

  // Of the input, or of each of the two, of the weight, and of the bias.
  static std::array<at::Tensor, 3> backward(AutogradContext* context, const variable_list& of_outputs) {
    const bool is_sum = of_outputs.size() == 2;
    const at::Tensor of_sum = is_sum && of_outputs[1].defined() ? of_outputs[1].contiguous() : at::Tensor();
    if (!of_outputs[0].defined()) {
      return {of_sum, at::Tensor(), at::Tensor()};
    }
    const HostFused& kernels = kept_kernels(context);
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &input = saved[0], &weight = saved[1];
    const at::Tensor mean = context->saved_data["mean"].toTensor(), inverse = context->saved_data["inverse"].toTensor();
    const at::Tensor gradient = of_outputs[0].contiguous();
    const std::int64_t width = weight.numel(), rows = input.numel() / width, blocks = (rows + kRows - 1) / kRows;
    at::Tensor of_input = empty(input.sizes()), of_weight = empty(weight.sizes()), of_bias = empty(weight.sizes());
    const at::Tensor shares = empty({blocks, 2, width});
    HostLayerNormBackward arguments{};
    arguments.rows = rows;
    arguments.block = kRows;
    arguments.width = width;
    arguments.input = input.const_data_ptr<float>();
    arguments.weight = weight.const_data_ptr<float>();
    arguments.mean = mean.const_data_ptr<float>();
    arguments.inverse = inverse.const_data_ptr<float>();
    arguments.of_output = gradient.const_data_ptr<float>();
    arguments.of_sum = of_sum.defined() ? of_sum.const_data_ptr<float>() : nullptr;
    arguments.of_input = of_input.mutable_data_ptr<float>();
    arguments.shares = shares.mutable_data_ptr<float>();
    run(kernels.layer_norm_backward, arguments, blocks, kRows * width);
    float* const parameters[] = {of_weight.mutable_data_ptr<float>(), of_bias.mutable_data_ptr<float>()};
    const float* share = shares.const_data_ptr<float>();
    for (std::int64_t block = 0; block < blocks; ++block) {
      for (float* const parameter : parameters) {
        for (std::int64_t index = 0; index < width; ++index, ++share) {
          parameter[index] = block == 0 ? *share : parameter[index] + *share;
        }
      }
    }
    return {of_input, of_weight, of_bias};
  }
};

struct LayerNorm : torch::autograd::Function<LayerNorm> {
  static at::Tensor forward(
      AutogradContext* context,
      const at::Tensor& input,
      const at::Tensor& weight,
      const at::Tensor& bias,
      double eps) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    return Normalization::forward(context, input, at::Tensor(), weight, bias, eps)[0];
  }

  static variable_list backward(AutogradContext* context, const variable_list& of_outputs) {
    refuse_second_derivative("layer_norm");
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto [of_input, of_weight, of_bias] = Normalization::backward(context, of_outputs);
    return {of_input, of_weight, of_bias, at::Tensor()};
  }
};

struct AddAndLayerNorm : torch::autograd::Function<AddAndLayerNorm> {
  static variable_list forward(
      AutogradContext* context,
      const at::Tensor& left,
      const at::Tensor& right,
      const at::Tensor& weight,
      const at::Tensor& bias,
      double eps) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    return Normalization::forward(context, left, right, weight, bias, eps);
  }

  static variable_list backward(AutogradContext* context, const variable_list& of_outputs) {
    refuse_second_derivative("layer_norm");
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto [of_input, of_weight, of_bias] = Normalization::backward(context, of_outputs);
    return {of_input, of_input, of_weight, of_bias, at::Tensor()};
  }
};

HostAttention attention_of(const at::Tensor& projected, bool causal) {
  HostAttention arguments{};
  arguments.length = projected.size(1);
  arguments.heads = projected.size(3);
  arguments.features = projected.size(4);
  arguments.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(arguments.features)));
  arguments.causal = causal;
  arguments.projected = projected.const_data_ptr<float>();
  return arguments;
}

void run_attention(const HostFused& kernels, const HostAttention& arguments, std::int64_t batch) {
  run(kernels.attention, arguments, batch * arguments.heads, arguments.length * arguments.length);
}

struct Attention : torch::autograd::Function<Attention> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& projected, bool causal, bool learns) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const HostFused& kernels = *fused_kernels();
    HostAttention arguments = attention_of(projected, causal);
    const std::int64_t batch = projected.size(0), length = arguments.length;
    at::Tensor output = empty({batch, length, arguments.heads * arguments.features});
    const at::Tensor weights = learns ? empty({batch, arguments.heads, length, length}) : at::Tensor();
    arguments.weights = data_or_null(weights);
    arguments.output = output.mutable_data_ptr<float>();
    run_attention(kernels, arguments, batch);
    keep_kernels(context, kernels);
    context->save_for_backward({projected});
    context->saved_data["weights"] = weights;
    context->saved_data["causal"] = causal;
    return output;
  }

  static variable_list backward(AutogradContext* context, const variable_list& of_output) {
    refuse_second_derivative("multi_head_attention");
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const at::Tensor projected = context->get_saved_variables()[0];
    const at::Tensor weights = context->saved_data["weights"].toTensor();
    const at::Tensor gradient = of_output[0].contiguous();
    at::Tensor of_projected = empty(projected.sizes());
    HostAttention arguments = attention_of(projected, context->saved_data["causal"].toBool());
    arguments.weights = weights.mutable_data_ptr<float>();
    // Read only.
    arguments.output = const_cast<float*>(gradient.const_data_ptr<float>());
    arguments.gradient = of_projected.mutable_data_ptr<float>();
    run_attention(kept_kernels(context), arguments, projected.size(0));
    return {std::move(of_projected), at::Tensor(), at::Tensor()};
  }
};

struct CrossEntropy : torch::autograd::Function<CrossEntropy> {
  static at::Tensor forward(
      AutogradContext* context,
      const at::Tensor& outputs,
      const at::Tensor& targets,
      bool learns) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const at::Tensor gradient = learns ? empty(outputs.sizes()) : at::Tensor();
    context->saved_data["gradient"] = gradient;
    return fused_cross_entropy(*fused_kernels(), outputs, targets, gradient);
  }

  static variable_list backward(AutogradContext* context, const variable_list& of_output) {
    refuse_second_derivative("cross_entropy");
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    at::Tensor gradient = context->saved_data["gradient"].toTensor();
    if (*of_output[0].const_data_ptr<float>() != 1) {
      gradient = gradient.mul(of_output[0]);
    }
    return {std::move(gradient), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

const HostFused* fused_kernels() { return kernels_of_thread; }

bool fused_fits(const at::Tensor& input) {
  return kernels_of_thread != nullptr && input.device().is_cpu() && input.scalar_type() == at::kFloat &&
      input.is_contiguous() && input.numel() > 0 && !at::autocast::is_autocast_enabled(at::kCPU);
}

void fused_gelu(const HostFused& kernels, const at::Tensor& input, at::Tensor& output, const at::Tensor& derivative) {
  const HostGelu arguments{
      input.const_data_ptr<float>(), output.mutable_data_ptr<float>(), data_or_null(derivative)};
  run(kernels.gelu, arguments, input.numel(), 1);
}

void fused_multiply(const HostFused& kernels, const at::Tensor& left, const at::Tensor& right, at::Tensor& out) {
  const HostMultiply arguments{
      left.const_data_ptr<float>(), right.const_data_ptr<float>(), out.mutable_data_ptr<float>()};
  run(kernels.multiply, arguments, out.numel(), 1);
}

bool fused_cross_entropy_fits(const at::Tensor& outputs, const at::Tensor& targets) {
  if (!fused_fits(outputs) || outputs.dim() != 2 || targets.scalar_type() != at::kLong || targets.dim() != 1 ||
      !targets.is_contiguous() || targets.size(0) != outputs.size(0)) {
    return false;
  }
  const std::int64_t* first = targets.const_data_ptr<std::int64_t>();
  return std::all_of(first, first + targets.numel(), [&](std::int64_t target) {
    return target >= 0 && target < outputs.size(1);
  });
}

at::Tensor fused_cross_entropy(
    const HostFused& kernels,
    const at::Tensor& outputs,
    const at::Tensor& targets,
    const at::Tensor& gradient) {
  const std::int64_t size = outputs.size(0);
  const at::Tensor losses = empty({size});
  HostCrossEntropy arguments{};
  arguments.classes = outputs.size(1);
  arguments.weight = 1 / static_cast<float>(size);
  arguments.outputs = outputs.const_data_ptr<float>();
  arguments.targets = targets.const_data_ptr<std::int64_t>();
  arguments.losses = losses.mutable_data_ptr<float>();
  arguments.gradient = data_or_null(gradient);
  run(kernels.cross_entropy, arguments, size, arguments.classes);
  double sum = 0;
  for (std::int64_t sample = 0; sample < size; ++sample) {
    sum += arguments.losses[sample];
  }
  at::Tensor mean = empty({});
  *mean.mutable_data_ptr<float>() = static_cast<float>(sum / static_cast<double>(size));
  return mean;
}

extern "C" {

// From now on, the calling thread uses these kernels, which are static; none if it is null. Returns those of before.
const HostFused* host_torch_fused(const HostFused* kernels) noexcept {
  const HostFused* previous = kernels_of_thread;
  kernels_of_thread = kernels;
  return previous;
}

// GELU without the approximation by tanh. This and the functions below leave `*output` null where libtorch is to compute.
int host_torch_fused_gelu(const at::Tensor* input, at::Tensor** output) noexcept {
  return guarded([&] {
    if (fused_fits(*input)) {
      const Recorded recorded("host::gelu");
      *output = new at::Tensor(Gelu::apply(*input, learns(*input)));
    }
  });
}

// Layer normalization over the last dimensions, which are those of `weight` and `bias`: of the input, or, if `other` is not null, of
// the sum of both, which is written to `*sum`.
int host_torch_fused_layer_norm(
    const at::Tensor* input,
    const at::Tensor* other,
    const at::Tensor* weight,
    const at::Tensor* bias,
    double eps,
    at::Tensor** output,
    at::Tensor** sum) noexcept {
  return guarded([&] {
    const auto shape = weight->sizes();
    if (!fused_fits(*input) || !fused_fits(*weight) || !fused_fits(*bias) || bias->sizes() != shape ||
        input->dim() < weight->dim() || input->sizes().slice(input->dim() - weight->dim()) != shape ||
        (other != nullptr && (!fused_fits(*other) || other->sizes() != input->sizes()))) {
      return;
    }
    const Recorded recorded("host::layer_norm");
    if (other == nullptr) {
      *output = new at::Tensor(LayerNorm::apply(*input, *weight, *bias, eps));
      return;
    }
    variable_list outputs = AddAndLayerNorm::apply(*input, *other, *weight, *bias, eps);
    *sum = new at::Tensor(std::move(outputs[1]));
    *output = new at::Tensor(std::move(outputs[0]));
  });
}

// Attention of `[batch, length, 3, heads, features]`, which are queries, keys and values: `[batch, length, heads × features]`.
int host_torch_fused_attention(const at::Tensor* projected, bool causal, at::Tensor** output) noexcept {
  return guarded([&] {
    if (fused_fits(*projected) && projected->dim() == 5 && projected->size(2) == 3 &&
        projected->size(1) <= kLongestContext) {
      const Recorded recorded("host::attention");
      *output = new at::Tensor(Attention::apply(*projected, causal, learns(*projected)));
    }
  });
}

// The mean loss of `[size, classes]` for classes, `[size]`.
int host_torch_fused_cross_entropy(const at::Tensor* outputs, const at::Tensor* targets, at::Tensor** loss) noexcept {
  return guarded([&] {
    if (fused_cross_entropy_fits(*outputs, *targets)) {
      const Recorded recorded("host::cross_entropy");
      *loss = new at::Tensor(CrossEntropy::apply(*outputs, *targets, learns(*outputs)));
    }
  });
}

}  // extern "C"
