// Work on libtorch's own threads.

#pragma once

#include <ATen/EmptyTensor.h>
#include <ATen/TensorIterator.h>

#include <cstdint>

// Calls `body` with each of `parts` numbers, on libtorch's own threads. `at::parallel_for` is a template that takes the threads
// of the OpenMP that it is compiled with here; the loop of a TensorIterator takes those that libtorch was built with.
template <class Body>
void on_threads(std::int64_t parts, const Body& body) {
  if (parts == 1) {
    body(0);
    return;
  }
  const at::Tensor places = at::detail::empty_cpu({parts}, at::kByte);
  const auto* first = static_cast<const char*>(places.const_data_ptr());
  auto iterator = at::TensorIterator::nullary_op(const_cast<at::Tensor&>(places));
  iterator.for_each(
      [&](char** data, const std::int64_t*, std::int64_t count) {
        for (std::int64_t part = data[0] - first; count > 0; --count, ++part) {
          body(part);
        }
      },
      1);
}
