// A program as it is kept: a flat list of calls over slots. `program.cpp` makes it, `program_run.cpp` runs it.

#pragma once

#include "program_symbols.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

using Slot = int64_t;

// No value: an optional argument that is not given, or an output that nobody reads.
constexpr Slot NO_SLOT = -1;

// What a step of a program does, beside calling an operator, as in program.rs.
enum Step {
  OPERATOR = 0,
  // Arithmetic with sizes.
  SYMBOL,
  // A region begins in which gradients are recorded, or not.
  GRADIENTS,
  // A region begins with autocast, or without.
  AUTOCAST,
  // The innermost region ends.
  LEAVE,
  // What follows is done if a condition holds, up to its `ELSE`; then what follows that, up to its `END`.
  IF,
  ELSE,
  END,
  // A value goes to another slot.
  COPY,
};

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
  Step step = OPERATOR;
  std::optional<c10::OperatorHandle> handle;
  Symbol symbol = ADD;
  std::vector<Argument> arguments;
  std::vector<Output> outputs;
  // The slots whose values nobody reads after this.
  std::vector<Slot> last_used;
  // A counter that only training moves: evaluation takes its slot for the output.
  Slot counter = NO_SLOT;
  // The running mean of a normalization.
  Slot statistics = NO_SLOT;
  // Of a normalization whose statistics stay: it computes as in evaluation.
  bool is_still = false;
  // Of a region, what it changes to.
  std::vector<int64_t> settings;
  // Of `IF`, the call after its `ELSE`; of `ELSE`, that after its `END`.
  size_t target = 0;
};

struct HostTorchProgram {
  at::Device device;
  std::vector<c10::IValue> values;
  // The slots with the tensors of the model, whose values stay.
  std::vector<bool> is_bound;
  std::vector<Slot> buffers;
  std::vector<Call> calls;
  std::vector<Slot> outputs;
  // The branches that have no end yet, while the program is made.
  std::vector<size_t> open;
};
