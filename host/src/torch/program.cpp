// Exported programs: a flat list of operators, called one after the other through libtorch's dispatcher, as eager PyTorch
// calls them: autograd records them, and autocast casts. The rules of shim.cpp apply.

#include "guarded.h"

#include <ATen/ScalarOps.h>
#include <ATen/core/List.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/enum_tag.h>
#include <ATen/core/grad_mode.h>
#include <ATen/core/stack.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace {

using Slot = int64_t;

// No value: an optional argument that is not given, or an output that nobody reads.
constexpr Slot NO_SLOT = -1;

// The values of `HostTorchArgument::tag`, as in program.rs.
enum Tag {
  NONE = 0,
  SLOT = 1,
  SLOTS = 2,
  INTEGER = 3,
  // A list of which each element is a number or a slot.
  INTEGERS = 4,
  DOUBLE = 5,
  DOUBLES = 6,
  BOOL = 7,
  BOOLS = 8,
  TEXT = 9,
  // The device that the program runs on.
  DEVICE = 10,
};

// Arithmetic with sizes, as in program.rs.
enum Symbol { ADD = 0, SUBTRACT, MULTIPLY, FLOOR_DIVIDE, MODULO, NEGATE, EQUAL, NOT_EQUAL, LESS, LESS_EQUAL, GREATER, GREATER_EQUAL };

} // namespace

extern "C" {

// An argument of a call; everything is borrowed for the call that passes it.
struct HostTorchArgument {
  const char* name;
  size_t name_length;
  int tag;
  // The number of elements of a list, or of bytes of a text.
  size_t count;
  const int64_t* integers;
  // For `INTEGERS`: whether each element is a slot.
  const uint8_t* are_slots;
  const double* doubles;
  const char* text;
};

// What a call returns in one place: a list of `count` tensors, or else one value, in `slots[0]`. `slots` is borrowed for the
// call that passes it.
struct HostTorchOutput {
  size_t count;
  bool is_list;
  const int64_t* slots;
};

} // extern "C"

namespace {

struct Argument {
  // Without slots, the value itself; where the mode decides, that of training.
  c10::IValue constant;
  // In evaluation, if that is another one.
  std::optional<c10::IValue> in_evaluation;
  enum { CONSTANT, VALUE, TENSORS, OPTIONAL_TENSORS, NUMBERS } kind = CONSTANT;
  std::vector<Slot> slots;
  // For `NUMBERS`: the elements that are no slots.
  std::vector<int64_t> numbers;
};

struct Output {
  bool is_list;
  std::vector<Slot> slots;
};

struct Call {
  std::string label;
  std::optional<c10::OperatorHandle> handle;
  Symbol symbol = ADD;
  std::vector<Argument> arguments;
  std::vector<Output> outputs;
  // The slots whose values nobody reads after this.
  std::vector<Slot> last_used;
  // A counter that only training moves: evaluation takes its slot for the output.
  Slot counter = NO_SLOT;
};

bool is_flag_of_mode(const std::string& name) {
  return name == "train" || name == "training";
}

int64_t floor_divide(int64_t dividend, int64_t divisor) {
  if (divisor == 0) {
    throw std::runtime_error("a size is divided by zero");
  }
  const int64_t quotient = dividend / divisor;
  return dividend % divisor != 0 && (dividend < 0) != (divisor < 0) ? quotient - 1 : quotient;
}

c10::IValue evaluate(Symbol symbol, const std::vector<c10::IValue>& values) {
  const int64_t left = values.at(0).toInt();
  if (symbol == NEGATE) {
    return -left;
  }
  const int64_t right = values.at(1).toInt();
  switch (symbol) {
    case ADD:
      return left + right;
    case SUBTRACT:
      return left - right;
    case MULTIPLY:
      return left * right;
    case FLOOR_DIVIDE:
      return floor_divide(left, right);
    case MODULO:
      return left - floor_divide(left, right) * right;
    case EQUAL:
      return left == right;
    case NOT_EQUAL:
      return left != right;
    case LESS:
      return left < right;
    case LESS_EQUAL:
      return left <= right;
    case GREATER:
      return left > right;
    case GREATER_EQUAL:
      return left >= right;
    default:
      throw std::runtime_error("an unknown operation with sizes");
  }
}

c10::IValue list_of_doubles(const double* values, size_t count) {
  return c10::List<double>(c10::ArrayRef<double>(values, count));
}

} // namespace

extern "C" {

struct HostTorchProgram {
  at::Device device;
  std::vector<c10::IValue> values;
  // The slots with the tensors of the model, whose values stay.
  std::vector<bool> is_bound;
  std::vector<Slot> buffers;
  std::vector<Call> calls;
  std::vector<Slot> outputs;
};

int host_torch_program_new(int device, size_t slots, HostTorchProgram** program) noexcept {
  return guarded([&] {
    const at::Device where =
        device < 0 ? at::Device(at::kCPU) : at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(device));
    *program = new HostTorchProgram{
        where, std::vector<c10::IValue>(slots), std::vector<bool>(slots, false), {}, {}, {}};
  });
}

void host_torch_program_free(HostTorchProgram* program) noexcept {
  delete program;
}

// Gives a slot a tensor of the model for good.
int host_torch_program_bind(HostTorchProgram* program, int64_t slot, const at::Tensor* tensor, bool is_buffer) noexcept {
  return guarded([&] {
    program->values.at(slot) = *tensor;
    program->is_bound.at(slot) = true;
    if (is_buffer) {
      program->buffers.push_back(slot);
    }
  });
}

// A view of a storage's values, as it was saved: a leaf that shares the storage's memory.
int host_torch_program_view(
    const at::Tensor* storage,
    const int64_t* sizes,
    const int64_t* strides,
    size_t dimensions,
    int64_t offset,
    bool requires_grad,
    at::Tensor** view) noexcept {
  return guarded([&] {
    at::Tensor made;
    {
      at::NoGradGuard no_grad;
      made = storage->as_strided(
          at::IntArrayRef(sizes, dimensions), at::IntArrayRef(strides, dimensions), offset).detach();
    }
    made.set_requires_grad(requires_grad);
    *view = new at::Tensor(std::move(made));
  });
}

// Whether libtorch has this operator.
bool host_torch_program_knows(const char* name, const char* overload) noexcept {
  bool knows = false;
  guarded([&] { knows = c10::Dispatcher::singleton().findSchema({name, overload}).has_value(); });
  return knows;
}

// Adds a call. `*random` says whether it draws random numbers in evaluation, too.
int host_torch_program_call(
    HostTorchProgram* program,
    const char* label,
    const char* name,
    const char* overload,
    const HostTorchArgument* given,
    size_t given_count,
    const HostTorchOutput* outputs,
    size_t output_count,
    bool* random) noexcept {
  return guarded([&] {
    const auto handle = c10::Dispatcher::singleton().findSchema({name, overload});
    if (!handle) {
      throw std::runtime_error("libtorch does not have it");
    }
    const c10::FunctionSchema& schema = handle->schema();
    Call call;
    call.label = label;
    call.handle = *handle;
    bool mode_decides = false;
    bool keeps_statistics = false;
    std::vector<bool> used(given_count, false);
    for (const c10::Argument& parameter : schema.arguments()) {
      const HostTorchArgument* argument = nullptr;
      for (size_t index = 0; index < given_count; ++index) {
        if (parameter.name() == std::string(given[index].name, given[index].name_length)) {
          argument = &given[index];
          used[index] = true;
        }
      }
      const c10::TypePtr type = parameter.type();
      c10::TypePtr inner = type;
      if (const auto optional = type->cast<c10::OptionalType>()) {
        inner = optional->getElementType();
      }
      Argument made;
      if (!argument) {
        if (!parameter.default_value()) {
          throw std::runtime_error("its argument `" + parameter.name() + "` is missing");
        }
        made.constant = *parameter.default_value();
      } else {
        switch (argument->tag) {
          case NONE:
            break;
          case SLOT:
            made.kind = Argument::VALUE;
            made.slots = {argument->integers[0]};
            break;
          case SLOTS: {
            const auto list = inner->cast<c10::ListType>();
            const bool of_optional = list && list->getElementType()->kind() == c10::TypeKind::OptionalType;
            made.kind = of_optional ? Argument::OPTIONAL_TENSORS : Argument::TENSORS;
            made.slots.assign(argument->integers, argument->integers + argument->count);
            break;
          }
          case INTEGER:
            if (inner->kind() == c10::TypeKind::TensorType) {
              made.constant = at::native::wrapped_scalar_tensor(argument->integers[0]);
            } else if (inner->kind() == c10::TypeKind::FloatType) {
              made.constant = static_cast<double>(argument->integers[0]);
            } else {
              made.constant = argument->integers[0];
            }
            break;
          case INTEGERS: {
            bool has_slots = false;
            for (size_t index = 0; index < argument->count; ++index) {
              has_slots = has_slots || argument->are_slots[index] != 0;
              const bool is_slot = argument->are_slots[index] != 0;
              made.slots.push_back(is_slot ? argument->integers[index] : NO_SLOT);
              made.numbers.push_back(is_slot ? 0 : argument->integers[index]);
            }
            const auto list = inner->cast<c10::ListType>();
            if (list && list->getElementType()->kind() == c10::TypeKind::FloatType && !has_slots) {
              const std::vector<double> values(made.numbers.begin(), made.numbers.end());
              made.constant = list_of_doubles(values.data(), values.size());
            } else if (has_slots) {
              made.kind = Argument::NUMBERS;
            } else {
              made.constant = c10::List<int64_t>(c10::ArrayRef<int64_t>(made.numbers));
            }
            break;
          }
          case DOUBLE:
            if (inner->kind() == c10::TypeKind::TensorType) {
              made.constant = at::native::wrapped_scalar_tensor(argument->doubles[0]);
            } else {
              made.constant = argument->doubles[0];
            }
            break;
          case DOUBLES:
            made.constant = list_of_doubles(argument->doubles, argument->count);
            break;
          case BOOL:
            if (inner->kind() == c10::TypeKind::TensorType) {
              made.constant = at::native::wrapped_scalar_tensor(argument->integers[0] != 0);
            } else {
              made.constant = argument->integers[0] != 0;
            }
            break;
          case BOOLS: {
            c10::List<bool> list;
            for (size_t index = 0; index < argument->count; ++index) {
              list.push_back(argument->integers[index] != 0);
            }
            made.constant = list;
            break;
          }
          case TEXT:
            made.constant = std::string(argument->text, argument->count);
            break;
          case DEVICE:
            made.constant = program->device;
            break;
          default:
            throw std::runtime_error("its argument `" + parameter.name() + "` has an unknown type");
        }
      }
      if (parameter.name() == "running_mean") {
        keeps_statistics = made.kind == Argument::VALUE;
      }
      const bool is_constant = made.kind == Argument::CONSTANT;
      if (is_constant && made.constant.isBool() && is_flag_of_mode(parameter.name())) {
        // Without running statistics, a normalization takes the batch's in both modes.
        const bool normalizes = schema.argumentIndexWithName("running_mean").has_value();
        if (!normalizes || keeps_statistics) {
          made.in_evaluation = c10::IValue(false);
        }
        mode_decides = true;
      } else if (is_constant && made.constant.isBool() && parameter.name() == "use_input_stats") {
        if (keeps_statistics) {
          made.in_evaluation = c10::IValue(false);
        }
      } else if (is_constant && made.constant.isDouble() && parameter.name() == "dropout_p") {
        made.in_evaluation = c10::IValue(0.0);
        mode_decides = true;
      }
      const bool is_written = parameter.alias_info() != nullptr && parameter.alias_info()->isWrite();
      if (is_written && made.kind == Argument::VALUE) {
        const Slot slot = made.slots[0];
        for (const Slot buffer : program->buffers) {
          if (buffer == slot && !at::isFloatingType(program->values.at(slot).toTensor().scalar_type())) {
            call.counter = slot;
          }
        }
      }
      call.arguments.push_back(std::move(made));
    }
    for (size_t index = 0; index < given_count; ++index) {
      if (!used[index]) {
        throw std::runtime_error(
            "it has no argument `" + std::string(given[index].name, given[index].name_length) + "`");
      }
    }
    for (size_t index = 0; index < output_count; ++index) {
      const HostTorchOutput& output = outputs[index];
      const size_t count = output.is_list ? output.count : 1;
      call.outputs.push_back({output.is_list, std::vector<Slot>(output.slots, output.slots + count)});
    }
    *random = handle->hasTag(at::Tag::nondeterministic_seeded) && !mode_decides;
    program->calls.push_back(std::move(call));
  });
}

// Adds arithmetic with sizes: `left` and `right` are numbers or slots.
int host_torch_program_symbol(
    HostTorchProgram* program,
    const char* label,
    int symbol,
    const int64_t* operands,
    const uint8_t* are_slots,
    size_t count,
    int64_t output) noexcept {
  return guarded([&] {
    Call call;
    call.label = label;
    call.symbol = static_cast<Symbol>(symbol);
    for (size_t index = 0; index < count; ++index) {
      Argument argument;
      if (are_slots[index] != 0) {
        argument.kind = Argument::VALUE;
        argument.slots = {operands[index]};
      } else {
        argument.constant = operands[index];
      }
      call.arguments.push_back(std::move(argument));
    }
    call.outputs.push_back({false, {output}});
    program->calls.push_back(std::move(call));
  });
}

// Ends a program: these slots are its outputs.
int host_torch_program_finish(HostTorchProgram* program, const int64_t* outputs, size_t count) noexcept {
  return guarded([&] {
    program->outputs.assign(outputs, outputs + count);
    std::vector<bool> is_needed(program->values.size(), false);
    for (const Slot slot : program->outputs) {
      is_needed.at(slot) = true;
    }
    const auto last_use = [&](Call& call, Slot slot) {
      if (slot != NO_SLOT && !is_needed.at(slot) && !program->is_bound.at(slot)) {
        is_needed.at(slot) = true;
        call.last_used.push_back(slot);
      }
    };
    for (auto call = program->calls.rbegin(); call != program->calls.rend(); ++call) {
      // A value that nobody reads is freed where it is made.
      for (const Output& output : call->outputs) {
        for (const Slot slot : output.slots) {
          last_use(*call, slot);
        }
      }
      for (const Argument& argument : call->arguments) {
        for (const Slot slot : argument.slots) {
          last_use(*call, slot);
        }
      }
    }
  });
}

} // extern "C"

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

void run(HostTorchProgram& program, const Call& call, bool training, torch::jit::Stack& stack) {
  if (!training && call.counter != NO_SLOT) {
    store(program, call.outputs.at(0), program.values.at(call.counter));
    return;
  }
  stack.clear();
  for (const Argument& argument : call.arguments) {
    stack.push_back(value_of(program, argument, training));
  }
  if (!call.handle) {
    store(program, call.outputs.at(0), evaluate(call.symbol, stack));
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
    torch::jit::Stack stack;
    for (const Call& call : program->calls) {
      try {
        run(*program, call, training, stack);
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
        throw std::runtime_error("its evaluation changes a buffer");
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
