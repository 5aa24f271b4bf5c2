// A layer of gated recurrent units in one direction, with one product for all gates of a step. The rules of shim.cpp apply.
//
// libtorch computes it operator by operator, and an LSTM by oneDNN, which is as fast as this would be. Here the products go where
// those of other layers go (products.h), the recurrent weight is turned around once instead of once a step, and the gradients of
// both weights are one product each over all steps.
//
// Values are `[length, batch, features]`. The states of all steps lie in one tensor of `length + 1`, with the zeros from which it
// starts at the end where it begins to read.

#include "autocast.h"
#include "guarded.h"
#include "products.h"

#include <ATen/EmptyTensor.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/add_cpu_dispatch.h>
#include <ATen/ops/addcmul_cpu_dispatch.h>
#include <ATen/ops/mul_cpu_dispatch.h>
#include <ATen/ops/sigmoid_backward_cpu_dispatch.h>
#include <ATen/ops/sigmoid_cpu_dispatch.h>
#include <ATen/ops/sub_cpu_dispatch.h>
#include <ATen/ops/sum_cpu_dispatch.h>
#include <ATen/ops/tanh_backward_cpu_dispatch.h>
#include <ATen/ops/tanh_cpu_dispatch.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cstdint>

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor empty(at::IntArrayRef shape) { return at::detail::empty_cpu(shape, at::kFloat); }

// Lengths, and the order in which a direction reads.
struct Reading {
  std::int64_t length, batch, input, hidden;
  bool reverse;

  std::int64_t position(std::int64_t step) const { return reverse ? length - 1 - step : step; }
  // Where the state before and after a position lies among the states.
  std::int64_t before(std::int64_t position) const { return reverse ? position + 1 : position; }
  std::int64_t after(std::int64_t position) const { return reverse ? position : position + 1; }

  at::Tensor states() const {
    at::Tensor states = empty({length + 1, batch, hidden});
    states[reverse ? length : 0].zero_();
    return states;
  }
  at::Tensor all_before(const at::Tensor& states) const { return states.narrow(0, reverse ? 1 : 0, length); }
  at::Tensor all_after(const at::Tensor& states) const { return states.narrow(0, reverse ? 0 : 1, length); }
};

// The part of a gate, by PyTorch's order of them.
at::Tensor gate(const at::Tensor& gates, std::int64_t index, std::int64_t hidden) {
  return gates.narrow(1, index * hidden, hidden);
}

at::Tensor joined(const at::Tensor& values) { return values.flatten(0, 1); }

// The input's share of all gates of all steps.
at::Tensor of_input(const Reading& reading, const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias) {
  at::Tensor gates = empty({reading.length, reading.batch, weight.size(0)});
  at::Tensor rows = joined(gates);
  product(rows, bias, joined(input), weight.t());
  return gates;
}

// The gradients of the input, of both weights and both biases, from those of the gates' shares.
variable_list gradients_of(
    const Reading& reading,
    const at::Tensor& of_input,
    const at::Tensor& of_state,
    const at::Tensor& input,
    const at::Tensor& states,
    const at::Tensor& weight_input,
    const at::Tensor& weight_state,
    bool wants_input) {
  const at::Tensor input_rows = joined(of_input), state_rows = joined(of_state);
  at::Tensor input_gradient;
  if (wants_input) {
    input_gradient = empty(input.sizes());
    at::Tensor rows = joined(input_gradient);
    product(rows, input_rows, weight_input);
  }
  at::Tensor weight_input_gradient = empty(weight_input.sizes()), weight_state_gradient = empty(weight_state.sizes());
  product(weight_input_gradient, input_rows.t(), joined(input));
  product(weight_state_gradient, state_rows.t(), joined(reading.all_before(states)));
  at::Tensor bias_input_gradient = at::cpu::sum(input_rows, at::IntArrayRef{0});
  at::Tensor bias_state_gradient = at::cpu::sum(state_rows, at::IntArrayRef{0});
  return {
      std::move(input_gradient),
      std::move(weight_input_gradient),
      std::move(weight_state_gradient),
      std::move(bias_input_gradient),
      std::move(bias_state_gradient)};
}

// A second derivative would need the graph of what is computed below autograd.
void refuse_second_derivative() {
  TORCH_CHECK(
      !at::GradMode::is_enabled(),
      "`gru` has no second derivative by these kernels: start a new run with `[run] kernels = \"libtorch\"`");
}

Reading reading_of(const at::Tensor& input, const at::Tensor& weight_state, bool reverse) {
  return {input.size(0), input.size(1), input.size(2), weight_state.size(1), reverse};
}

// Gates: reset, update, new.
struct Layer : torch::autograd::Function<Layer> {
  static at::Tensor forward(
      AutogradContext* context,
      const at::Tensor& input,
      const at::Tensor& weight_input,
      const at::Tensor& weight_state,
      const at::Tensor& bias_input,
      const at::Tensor& bias_state,
      bool reverse) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const Reading reading = reading_of(input, weight_state, reverse);
    const std::int64_t hidden = reading.hidden;
    at::Tensor gates = of_input(reading, input, weight_input, bias_input);
    const at::Tensor turned = weight_state.t().contiguous();
    const at::Tensor states = reading.states();
    // The state's share of each step's gates: that of the third one is what the reset gate scales.
    const at::Tensor shares = empty(gates.sizes());
    for (std::int64_t step = 0; step < reading.length; ++step) {
      const std::int64_t position = reading.position(step);
      const at::Tensor before = states[reading.before(position)];
      at::Tensor own = gates[position], share = shares[position], state = states[reading.after(position)];
      product(share, bias_state, before, turned);
      at::Tensor resets_and_updates = own.narrow(1, 0, 2 * hidden), candidates = gate(own, 2, hidden);
      at::cpu::add_(resets_and_updates, share.narrow(1, 0, 2 * hidden));
      at::cpu::sigmoid_(resets_and_updates);
      at::cpu::addcmul_(candidates, gate(own, 0, hidden), gate(share, 2, hidden));
      at::cpu::tanh_(candidates);
      // h = n + z (h' - n)
      at::cpu::sub_out(state, before, candidates);
      at::cpu::mul_(state, gate(own, 1, hidden));
      at::cpu::add_(state, candidates);
    }
    context->save_for_backward({input, weight_input, weight_state});
    context->saved_data["kept"] = std::vector<at::Tensor>{gates, states, shares};
    context->saved_data["reverse"] = reverse;
    return reading.all_after(states).clone();
  }

  static variable_list backward(AutogradContext* context, const variable_list& of_output) {
    refuse_second_derivative();
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &input = saved[0], &weight_input = saved[1], &weight_state = saved[2];
    const std::vector<at::Tensor> kept = context->saved_data["kept"].toTensorVector();
    const at::Tensor &gates = kept[0], &states = kept[1], &shares = kept[2];
    const Reading reading = reading_of(input, weight_state, context->saved_data["reverse"].toBool());
    const std::int64_t hidden = reading.hidden;
    const at::Tensor of_gates = empty(gates.sizes()), of_shares = empty(gates.sizes());
    const at::Tensor of_outputs = of_output[0].contiguous();
    at::Tensor of_state = empty({reading.batch, hidden}).zero_();
    at::Tensor part = empty(of_state.sizes());
    for (std::int64_t step = reading.length; step-- > 0;) {
      const std::int64_t position = reading.position(step);
      const at::Tensor own = gates[position];
      const auto value = [&](std::int64_t index) { return gate(own, index, hidden); };
      at::Tensor gradient = of_gates[position], of_share = of_shares[position];
      at::Tensor of_r = gate(gradient, 0, hidden), of_z = gate(gradient, 1, hidden), of_n = gate(gradient, 2, hidden);
      at::cpu::add_(of_state, of_outputs[position]);
      // h = n + z (h' - n)
      at::cpu::sub_out(part, states[reading.before(position)], value(2));
      at::cpu::mul_(part, of_state);
      at::cpu::sigmoid_backward_out(of_z, part, value(1));
      at::cpu::mul_out(part, of_state, value(1));
      at::cpu::sub_out(of_n, of_state, part);
      at::cpu::tanh_backward_out(of_n, of_n, value(2));
      // What is left of the state's gradient goes on to the state before.
      at::cpu::mul_(of_state, value(1));
      // n = tanh(x + r share)
      at::cpu::mul_out(part, of_n, gate(shares[position], 2, hidden));
      at::cpu::sigmoid_backward_out(of_r, part, value(0));
      of_share.narrow(1, 0, 2 * hidden).copy_(gradient.narrow(1, 0, 2 * hidden));
      at::Tensor of_third = gate(of_share, 2, hidden);
      at::cpu::mul_out(of_third, of_n, value(0));
      product(of_state, of_state, of_share, weight_state);
    }
    variable_list gradients =
        gradients_of(
            reading, of_gates, of_shares, input, states, weight_input, weight_state, context->needs_input_grad(0));
    gradients.emplace_back();
    return gradients;
  }
};

}  // namespace

extern "C" {

// Whether layers of this input and weight are computed here; in another precision, or where products are libtorch's, libtorch has
// them.
bool host_torch_gru_is_ours(const at::Tensor* input, const at::Tensor* weight) noexcept {
  return products_are_ours() && input->device().is_cpu() && input->scalar_type() == at::kFloat &&
      weight->scalar_type() == at::kFloat && !at::autocast::is_autocast_enabled(at::kCPU);
}

// A layer over `[length, batch, features]`, with `weights` of the input and the state, and then their biases.
int host_torch_gru_layer(
    const at::Tensor* input,
    const at::Tensor* const* weights,
    bool reverse,
    at::Tensor** output) noexcept {
  return guarded([&] {
    *output = new at::Tensor(Layer::apply(*input, *weights[0], *weights[1], *weights[2], *weights[3], reverse));
  });
}

}  // extern "C"
