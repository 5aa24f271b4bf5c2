// Runs the programs that program.cpp makes. The rules of shim.cpp apply.

#include "guarded.h"
#include "program.h"
#include "program_regions.h"

#include <ATen/core/List.h>
#include <ATen/core/grad_mode.h>
#include <ATen/core/stack.h>

#include <memory>
#include <stdexcept>
#include <utility>

namespace {

c10::IValue value_of(const HostTorchProgram& program, const Argument& argument, bool training) {
  switch (argument.kind) {
    case Argument::CONSTANT:
      return !training && argument.in_evaluation ? *argument.in_evaluation : argument.constant;
    case Argument::VALUE:
      return program.values[argument.slots[0]];
    case Argument::TENSORS: {
      c10::List<at::Tensor> list;
      list.reserve(argument.slots.size());
      for (const Slot slot : argument.slots) {
        list.push_back(program.values.at(slot).toTensor());
      }
      return list;
    }
    case Argument::OPTIONAL_TENSORS: {
      c10::List<std::optional<at::Tensor>> list;
      list.reserve(argument.slots.size());
      for (const Slot slot : argument.slots) {
        list.push_back(slot == NO_SLOT ? std::nullopt : std::optional(program.values.at(slot).toTensor()));
      }
      return list;
    }
    case Argument::NUMBERS: {
      c10::List<int64_t> list;
      list.reserve(argument.slots.size());
      for (size_t index = 0; index < argument.slots.size(); ++index) {
        const Slot slot = argument.slots[index];
        list.push_back(slot == NO_SLOT ? argument.numbers[index] : program.values.at(slot).toInt());
      }
      return list;
    }
  }
  return {};
}

void store(HostTorchProgram& program, const Output& output, c10::IValue value) {
  if (!output.is_list) {
    if (output.slots[0] != NO_SLOT) {
      program.values.at(output.slots[0]) = std::move(value);
    }
    return;
  }
  const auto tensors = value.toTensorVector();
  if (tensors.size() != output.slots.size()) {
    throw std::runtime_error(
        "it returns " + std::to_string(tensors.size()) + " tensors instead of " + std::to_string(output.slots.size()) +
        ": the size of that dimension is fixed in the program");
  }
  for (size_t index = 0; index < tensors.size(); ++index) {
    if (output.slots[index] != NO_SLOT) {
      program.values.at(output.slots[index]) = tensors[index];
    }
  }
}

void run(HostTorchProgram& program, const Call& call, bool is_training, torch::jit::Stack& stack) {
  const bool training = is_training && !call.is_still;
  if (!training && call.counter != NO_SLOT) {
    store(program, call.outputs.at(0), program.values.at(call.counter));
    return;
  }
  stack.clear();
  for (const Argument& argument : call.arguments) {
    stack.push_back(value_of(program, argument, training));
  }
  if (call.step == SYMBOL) {
    store(program, call.outputs.at(0), evaluate(call.symbol, stack));
    return;
  }
  if (call.step == COPY) {
    store(program, call.outputs.at(0), std::move(stack.at(0)));
    return;
  }
  call.handle->callBoxed(stack);
  if (stack.size() < call.outputs.size()) {
    throw std::runtime_error("it returns fewer values than the program has names for");
  }
  for (size_t index = 0; index < call.outputs.size(); ++index) {
    store(program, call.outputs[index], std::move(stack[index]));
  }
}

// Keeps copies of what a call has made, without its graph, of the slots that are wanted.
void copy_wanted(
    const HostTorchProgram& program,
    const Call& call,
    const std::vector<bool>& is_wanted,
    std::vector<at::Tensor>& copies) {
  for (const Output& output : call.outputs) {
    for (const Slot slot : output.slots) {
      if (slot != NO_SLOT && is_wanted[slot] && program.values[slot].isTensor()) {
        copies[slot] = program.values[slot].toTensor().detach().clone();
      }
    }
  }
}

bool holds(const c10::IValue& condition) {
  return condition.isTensor() ? condition.toTensor().item().toBool() : condition.isBool() ? condition.toBool() : condition.toInt() != 0;
}

// Does a step that is no computation, and returns the index of the next one.
size_t control(
    const HostTorchProgram& program, size_t index, bool records_gradients, Regions& regions) {
  const Call& call = program.calls[index];
  switch (call.step) {
    case GRADIENTS:
      // An evaluation records none, wherever it is.
      regions.enter(std::make_unique<Gradients>(call.settings.at(0) != 0 && records_gradients));
      return index + 1;
    case AUTOCAST: {
      const int64_t dtype = call.settings.at(0);
      regions.enter(std::make_unique<Autocast>(
          program.device.type(),
          dtype < 0 ? std::nullopt : std::optional(static_cast<at::ScalarType>(dtype)),
          call.settings.at(1) != 0,
          call.settings.at(2) != 0));
      return index + 1;
    }
    case LEAVE:
      regions.leave();
      return index + 1;
    case IF:
      return holds(program.values.at(call.arguments.at(0).slots.at(0))) ? index + 1 : call.target;
    case ELSE:
      return call.target;
    default:
      return index + 1;
  }
}

// Frees the values of a run, however it ends.
struct Cleared {
  HostTorchProgram& program;
  ~Cleared() {
    for (size_t slot = 0; slot < program.values.size(); ++slot) {
      if (!program.is_bound[slot]) {
        program.values[slot] = c10::IValue();
      }
    }
  }
};

} // namespace

extern "C" {

// Runs the program over `inputs`, which go to the slots `input_slots`, and passes each output that is a tensor to `visit`,
// which owns it; after them a copy of the value of each slot in `wanted`, as it is when it is made: a later operator may
// change it in place. Evaluation that changes a buffer is an error.
int host_torch_program_run(
    HostTorchProgram* program,
    const int64_t* input_slots,
    const at::Tensor* const* inputs,
    size_t input_count,
    const int64_t* wanted,
    size_t wanted_count,
    bool training,
    void* context,
    void (*visit)(void* context, size_t index, at::Tensor* tensor)) noexcept {
  return guarded([&] {
    Cleared cleared{*program};
    for (size_t index = 0; index < input_count; ++index) {
      program->values.at(input_slots[index]) = *inputs[index];
    }
    std::vector<uint32_t> versions;
    if (!training) {
      for (const Slot slot : program->buffers) {
        versions.push_back(program->values.at(slot).toTensor()._version());
      }
    }
    std::vector<bool> is_wanted(wanted_count > 0 ? program->values.size() : 0, false);
    for (size_t index = 0; index < wanted_count; ++index) {
      is_wanted.at(wanted[index]) = true;
    }
    std::vector<at::Tensor> copies(is_wanted.size());
    // Those of inputs and of the model's tensors are there before the first call.
    for (size_t index = 0; index < wanted_count; ++index) {
      const c10::IValue& value = program->values[wanted[index]];
      if (value.isTensor()) {
        copies[wanted[index]] = value.toTensor().detach().clone();
      }
    }
    torch::jit::Stack stack;
    const bool records_gradients = at::GradMode::is_enabled();
    Regions regions;
    for (size_t next = 0; next < program->calls.size();) {
      const Call& call = program->calls[next];
      try {
        if (call.step == OPERATOR || call.step == SYMBOL || call.step == COPY) {
          run(*program, call, training, stack);
          next += 1;
        } else {
          next = control(*program, next, records_gradients, regions);
        }
      } catch (const c10::Error& error) {
        throw std::runtime_error("node `" + call.label + "` failed: " + error.what_without_backtrace());
      } catch (const std::exception& error) {
        throw std::runtime_error("node `" + call.label + "` failed: " + error.what());
      }
      if (wanted_count > 0) {
        copy_wanted(*program, call, is_wanted, copies);
      }
      for (const Slot slot : call.last_used) {
        program->values[slot] = c10::IValue();
      }
    }
    for (size_t index = 0; index < versions.size(); ++index) {
      if (program->values.at(program->buffers[index]).toTensor()._version() != versions[index]) {
        throw std::runtime_error("its evaluation changes a buffer, so that it needs a program of its own: `exported_eval`");
      }
    }
    for (size_t index = 0; index < program->outputs.size(); ++index) {
      const c10::IValue& value = program->values.at(program->outputs[index]);
      if (value.isTensor()) {
        visit(context, index, new at::Tensor(value.toTensor()));
      }
    }
    for (size_t index = 0; index < wanted_count; ++index) {
      const at::Tensor& copy = copies.at(wanted[index]);
      if (!copy.defined()) {
        throw std::runtime_error("a value that is asked for is not made");
      }
      visit(context, program->outputs.size() + index, new at::Tensor(copy));
    }
  });
}

} // extern "C"
