// Exported programs: a flat list of operators, called one after the other through libtorch's dispatcher, as eager PyTorch
// calls them: autograd records them, and autocast casts. The rules of shim.cpp apply.

#include "guarded.h"
#include "program.h"

#include <ATen/ScalarOps.h>
#include <ATen/core/List.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/enum_tag.h>
#include <ATen/core/grad_mode.h>
#include <ATen/core/stack.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace {

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

bool is_flag_of_mode(const std::string& name) {
  return name == "train" || name == "training";
}

c10::IValue list_of_doubles(const double* values, size_t count) {
  return c10::List<double>(c10::ArrayRef<double>(values, count));
}

} // namespace

extern "C" {

int host_torch_program_new(int device, HostTorchProgram** program) noexcept {
  return guarded([&] {
    const at::Device where =
        device < 0 ? at::Device(at::kCPU) : at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(device));
    *program = new HostTorchProgram{where, {}, {}, {}, {}, {}, {}};
  });
}

void host_torch_program_free(HostTorchProgram* program) noexcept {
  delete program;
}

// Makes room for a slot's value.
static void reach(HostTorchProgram& program, Slot slot) {
  if (slot != NO_SLOT && static_cast<size_t>(slot) >= program.values.size()) {
    program.values.resize(slot + 1);
    program.is_bound.resize(slot + 1, false);
  }
}

// Gives a slot a tensor of the model for good.
int host_torch_program_bind(HostTorchProgram* program, int64_t slot, const at::Tensor* tensor, bool is_buffer) noexcept {
  return guarded([&] {
    reach(*program, slot);
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
        call.statistics = keeps_statistics ? made.slots[0] : NO_SLOT;
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
    call.step = SYMBOL;
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

// Normalizations whose buffers are among `slots` compute as in evaluation from now on, and the others by the mode.
int host_torch_program_still(HostTorchProgram* program, const int64_t* slots, size_t count) noexcept {
  return guarded([&] {
    const auto is_among = [&](Slot slot) { return slot != NO_SLOT && std::find(slots, slots + count, slot) != slots + count; };
    for (Call& call : program->calls) {
      call.is_still = is_among(call.statistics) || is_among(call.counter);
    }
  });
}

// The tensors of these slots are no longer the program's: each run is given them, as its inputs.
int host_torch_program_unbind(HostTorchProgram* program, const int64_t* slots, size_t count) noexcept {
  return guarded([&] {
    for (size_t index = 0; index < count; ++index) {
      program->is_bound.at(slots[index]) = false;
      program->values.at(slots[index]) = c10::IValue();
    }
  });
}

// Adds a step that is no operator. `operands` are the settings of a region, the slot of a condition, or the slots from and to
// which a value is copied.
int host_torch_program_step(
    HostTorchProgram* program, const char* label, int step, const int64_t* operands, size_t count) noexcept {
  return guarded([&] {
    Call call;
    call.label = label;
    call.step = static_cast<Step>(step);
    const std::vector<int64_t> given(operands, operands + count);
    const auto reads = [&](Slot slot) {
      Argument argument;
      argument.kind = Argument::VALUE;
      argument.slots = {slot};
      call.arguments.push_back(std::move(argument));
    };
    const size_t index = program->calls.size();
    switch (call.step) {
      case GRADIENTS:
      case AUTOCAST:
        call.settings = given;
        break;
      case IF:
        reads(given.at(0));
        program->open.push_back(index);
        break;
      case ELSE:
        program->calls.at(program->open.back()).target = index + 1;
        program->open.back() = index;
        break;
      case END:
        program->calls.at(program->open.back()).target = index + 1;
        program->open.pop_back();
        break;
      case COPY:
        reads(given.at(0));
        call.outputs.push_back({false, {given.at(1)}});
        break;
      default:
        break;
    }
    program->calls.push_back(std::move(call));
  });
}

// Ends a program: these slots are its outputs.
int host_torch_program_finish(HostTorchProgram* program, const int64_t* outputs, size_t count) noexcept {
  return guarded([&] {
    program->outputs.assign(outputs, outputs + count);
    for (const Call& call : program->calls) {
      for (const Argument& argument : call.arguments) {
        for (const Slot slot : argument.slots) {
          reach(*program, slot);
        }
      }
      for (const Output& output : call.outputs) {
        for (const Slot slot : output.slots) {
          reach(*program, slot);
        }
      }
    }
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
