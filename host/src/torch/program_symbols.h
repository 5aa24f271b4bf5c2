// Arithmetic with the sizes of tensors, of an exported program.

#pragma once

#include <ATen/core/ivalue.h>

#include <cstdint>
#include <stdexcept>
#include <vector>

// As in program.rs.
enum Symbol {
  ADD = 0,
  SUBTRACT,
  MULTIPLY,
  FLOOR_DIVIDE,
  MODULO,
  NEGATE,
  EQUAL,
  NOT_EQUAL,
  LESS,
  LESS_EQUAL,
  GREATER,
  GREATER_EQUAL,
};

inline int64_t floor_divide(int64_t dividend, int64_t divisor) {
  if (divisor == 0) {
    throw std::runtime_error("a size is divided by zero");
  }
  const int64_t quotient = dividend / divisor;
  return dividend % divisor != 0 && (dividend < 0) != (divisor < 0) ? quotient - 1 : quotient;
}

inline c10::IValue evaluate(Symbol symbol, const std::vector<c10::IValue>& values) {
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
