// Batch normalization by the statistics of all ranks' samples (torch.nn.SyncBatchNorm, which is for GPUs only). The rules of
// shim.cpp apply.
//
// Each rank gives the count, the mean and the squared deviations of its own samples, and all put them together in the order of the
// ranks (Chan, Golub and LeVeque 1979), in f64: they have the same bits everywhere. Backward does the same with the two sums that
// the gradient of the input needs. A rank without a sample takes part.

#include "c10d.h"
#include "guarded.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/native_batch_norm.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// All dimensions but the channels.
std::vector<std::int64_t> samples_of(const at::Tensor& values) {
  std::vector<std::int64_t> dimensions{0};
  for (std::int64_t dimension = 2; dimension < values.dim(); ++dimension) {
    dimensions.push_back(dimension);
  }
  return dimensions;
}

// One number a channel, in the shape of the values.
at::Tensor by_channel(const at::Tensor& numbers, const at::Tensor& values) {
  std::vector<std::int64_t> shape(static_cast<std::size_t>(values.dim()), 1);
  shape[1] = numbers.numel();
  return numbers.view(shape);
}

// Everybody's numbers, in rows.
at::Tensor gathered(const HostGroup& group, const at::Tensor& own) {
  at::Tensor all = at::empty({group.world_size, own.numel()}, own.options());
  finish(group, *start_all_gather(group, all, own));
  return all;
}

struct Statistics {
  double count = 0;
  // f64, one number a channel: the mean, and the sum of squared deviations from it.
  at::Tensor mean, squares;
};

Statistics statistics_of_all(const HostGroup& group, const at::Tensor& input) {
  const std::int64_t channels = input.size(1);
  at::Tensor own = at::zeros({2 * channels + 1}, at::kDouble);
  if (input.numel() > 0) {
    const at::Tensor values = input.to(at::kDouble);
    const at::Tensor mean = values.mean(samples_of(input));
    own.narrow(0, 0, channels).copy_(mean);
    own.narrow(0, channels, channels).copy_((values - by_channel(mean, values)).square_().sum(samples_of(input)));
    own[2 * channels] = static_cast<double>(input.numel() / channels);
  }
  const at::Tensor all = gathered(group, own);
  Statistics together{0, at::zeros({channels}, at::kDouble), at::zeros({channels}, at::kDouble)};
  for (std::int64_t rank = 0; rank < group.world_size; ++rank) {
    const double count = all[rank][2 * channels].item<double>();
    if (count == 0) {
      continue;
    }
    const double sum = together.count + count;
    const at::Tensor distance = all[rank].narrow(0, 0, channels) - together.mean;
    together.mean += distance * (count / sum);
    together.squares += all[rank].narrow(0, channels, channels) + distance.square() * (together.count * count / sum);
    together.count = sum;
  }
  return together;
}

struct Normalization : torch::autograd::Function<Normalization> {
  static at::Tensor forward(
      AutogradContext* context,
      const at::Tensor& input,
      const at::Tensor& weight,
      const at::Tensor& bias,
      const at::Tensor& running_mean,
      const at::Tensor& running_variance,
      double momentum,
      double epsilon,
      std::int64_t group_address) {
    const auto& group = *reinterpret_cast<const HostGroup*>(group_address);
    const Statistics of_all = statistics_of_all(group, input);
    TORCH_CHECK(of_all.count > 1, "Expected more than 1 value per channel when training, over all ranks");
    const at::Tensor mean = of_all.mean.to(at::kFloat), variance = (of_all.squares / of_all.count).to(at::kFloat);
    running_mean.mul_(1 - momentum).add_(mean, momentum);
    running_variance.mul_(1 - momentum).add_((of_all.squares / (of_all.count - 1)).to(at::kFloat), momentum);
    context->saved_data["epsilon"] = epsilon;
    context->saved_data["count"] = of_all.count;
    context->saved_data["group"] = group_address;
    context->save_for_backward({input, weight, mean, variance});
    if (input.numel() == 0) {
      return at::empty_like(input);
    }
    // As with running statistics: those of all ranks are given, and nothing is gathered.
    return std::get<0>(at::native_batch_norm(input, weight, bias, mean, variance, false, 0, epsilon));
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "batch normalization over several ranks has no second derivative");
    const auto& group = *reinterpret_cast<const HostGroup*>(context->saved_data["group"].toInt());
    const double count = context->saved_data["count"].toDouble();
    const auto saved = context->get_saved_variables();
    const at::Tensor &input = saved[0], &weight = saved[1], &mean = saved[2], &variance = saved[3];
    const at::Tensor& gradient = gradients[0];
    const std::int64_t channels = input.size(1);
    const at::Tensor scale = (variance + context->saved_data["epsilon"].toDouble()).rsqrt_();
    const at::Tensor centered = input - by_channel(mean, input);
    at::Tensor own = at::zeros({2 * channels}, at::kDouble);
    if (input.numel() > 0) {
      own.narrow(0, 0, channels).copy_(gradient.sum(samples_of(input), false, at::kDouble));
      own.narrow(0, channels, channels).copy_((gradient * centered).sum(samples_of(input), false, at::kDouble));
    }
    const at::Tensor all = gathered(group, own);
    at::Tensor sums = all[0].clone();
    for (std::int64_t rank = 1; rank < group.world_size; ++rank) {
      sums += all[rank];
    }
    const at::Tensor of_gradient = (sums.narrow(0, 0, channels) / count).to(at::kFloat);
    const at::Tensor of_both = (sums.narrow(0, channels, channels) / count).to(at::kFloat) * scale * scale;
    at::Tensor input_gradient = gradient - by_channel(of_gradient, input);
    input_gradient.addcmul_(centered, by_channel(of_both, input).expand_as(centered), -1);
    input_gradient *= by_channel(scale * weight, input);
    // Those of the parameters are summed with all others.
    const at::Tensor weight_gradient = own.narrow(0, channels, channels).to(at::kFloat) * scale;
    const at::Tensor bias_gradient = own.narrow(0, 0, channels).to(at::kFloat);
    return {input_gradient, weight_gradient, bias_gradient, {}, {}, {}, {}, {}};
  }
};

}  // namespace

extern "C" {

// Normalizes f32 `[batch, channels, …]` on the CPU and moves the running statistics. The group outlives backward.
int host_torch_sync_batch_norm(
    const HostGroup* group,
    const at::Tensor* input,
    const at::Tensor* weight,
    const at::Tensor* bias,
    const at::Tensor* running_mean,
    const at::Tensor* running_variance,
    double momentum,
    double epsilon,
    at::Tensor** output) noexcept {
  return guarded([&] {
    at::Tensor normalized = Normalization::apply(
        *input,
        *weight,
        *bias,
        *running_mean,
        *running_variance,
        momentum,
        epsilon,
        static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(group)));
    *output = new at::Tensor(std::move(normalized));
  });
}

}  // extern "C"
