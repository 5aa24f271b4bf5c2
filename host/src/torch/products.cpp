// Matrix products of f32 on the CPU by a kernel of ours, on the threads that ask for it. The rules of shim.cpp apply.
//
// The kernels of `mm`, `addmm` and `bmm` are replaced in libtorch's dispatcher, below autograd and autocast, so that whatever
// computes a product gets there: layers, the operators of exported programs, and their gradients. What is not asked for, not f32,
// or has nothing to multiply is computed by the kernels that were there before.

#include "products.h"

#include "guarded.h"
#include "threads.h"

#include <ATen/EmptyTensor.h>
#include <ATen/Parallel.h>
#include <ATen/ops/addmm_cpu_dispatch.h>
#include <ATen/ops/bmm_cpu_dispatch.h>
#include <ATen/ops/mm_cpu_dispatch.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <mutex>

extern "C" {

// `out = left · right`, or `out = start + left · right` if there is a start, which may be `out`. An element (i, j) of a matrix lies at
// `i * row + j * column`; of `left` and `right`, one of the two strides is 1. The rows of `out` are contiguous.
struct HostProduct {
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t depth;
  float* out;
  std::int64_t out_row;
  const float* left;
  std::int64_t left_row;
  std::int64_t left_column;
  const float* right;
  std::int64_t right_row;
  std::int64_t right_column;
  const float* start;
  std::int64_t start_row;
  std::int64_t start_column;
};

// Computes on the calling thread.
using HostProductKernel = void (*)(const HostProduct*);

}  // extern "C"

namespace {

HostProductKernel kernel = nullptr;
std::once_flag registered;
thread_local bool is_wanted = false;

// Below this many multiplications, a thread takes longer to wake than to multiply.
constexpr std::int64_t kLeastPerThread = 1 << 18;

bool is_ours(const at::Tensor& tensor, std::int64_t dimensions) {
  return tensor.scalar_type() == at::kFloat && tensor.dim() == dimensions && tensor.numel() > 0;
}

// The matrix with rows or columns that lie one after another.
at::Tensor dense(const at::Tensor& matrix) {
  const auto dimensions = matrix.dim();
  const std::int64_t rows = matrix.size(dimensions - 2), columns = matrix.size(dimensions - 1);
  const std::int64_t row = matrix.stride(dimensions - 2), column = matrix.stride(dimensions - 1);
  const bool is_dense = (column == 1 && row >= std::max<std::int64_t>(1, columns)) || (row == 1 && column >= rows);
  return is_dense ? matrix : matrix.contiguous();
}

std::int64_t quotient_up(std::int64_t count, std::int64_t parts) { return (count + parts - 1) / parts; }

// How many parts the columns and the rows of a product are cut into, one part a thread: those for which a part reads least of
// both factors. A function of shapes and threads, as are therefore the sums' orders.
struct Parts {
  std::int64_t columns = 1;
  std::int64_t rows = 1;
};

Parts parts_of(const HostProduct& product) {
  const std::int64_t multiplications = product.rows * product.columns * product.depth;
  const std::int64_t threads =
      std::clamp<std::int64_t>(multiplications / kLeastPerThread, 1, at::get_num_threads());
  // A factor whose other dimension is contiguous is copied first, by each part for itself.
  const std::int64_t copied = product.right_row == 1 ? 2 : 1;
  Parts best;
  std::int64_t least = 0;
  for (std::int64_t columns = 1; columns <= threads; ++columns) {
    if (threads % columns != 0) {
      continue;
    }
    const std::int64_t rows = threads / columns;
    const std::int64_t cost = copied * quotient_up(product.columns, columns) + quotient_up(product.rows, rows);
    if (least == 0 || cost < least) {
      least = cost;
      best = {columns, rows};
    }
  }
  return best;
}

// The part of a product that a thread computes. Columns are cut at whole vectors.
HostProduct part_of(const HostProduct& whole, const Parts& parts, std::int64_t part) {
  constexpr std::int64_t kVector = 16;
  const auto cut = [](std::int64_t count, std::int64_t of, std::int64_t unit, std::int64_t index) {
    const std::int64_t units = quotient_up(count, unit);
    return std::min(count, units * index / of * unit);
  };
  const std::int64_t column = part % parts.columns, row = part / parts.columns;
  const std::int64_t left = cut(whole.columns, parts.columns, kVector, column);
  const std::int64_t top = cut(whole.rows, parts.rows, 1, row);
  HostProduct own = whole;
  own.columns = cut(whole.columns, parts.columns, kVector, column + 1) - left;
  own.rows = cut(whole.rows, parts.rows, 1, row + 1) - top;
  own.out += top * whole.out_row + left;
  own.left += top * whole.left_row;
  own.right += left * whole.right_column;
  if (own.start != nullptr) {
    own.start += top * whole.start_row + left * whole.start_column;
  }
  return own;
}

void multiply(const HostProduct& product) {
  const Parts parts = parts_of(product);
  on_threads(parts.columns * parts.rows, [&](std::int64_t part) {
    const HostProduct own = part_of(product, parts, part);
    if (own.rows > 0 && own.columns > 0) {
      kernel(&own);
    }
  });
}

// The product of two dense matrices, without a start.
HostProduct product_of(const at::Tensor& left, const at::Tensor& right, float* out) {
  HostProduct product{};
  const auto last = left.dim() - 1;
  product.rows = left.size(last - 1);
  product.columns = right.size(last);
  product.depth = left.size(last);
  product.out = out;
  product.out_row = product.columns;
  product.left = left.const_data_ptr<float>();
  product.left_row = left.stride(last - 1);
  product.left_column = left.stride(last);
  product.right = right.const_data_ptr<float>();
  product.right_row = right.stride(last - 1);
  product.right_column = right.stride(last);
  return product;
}

bool fits(const at::Tensor& left, const at::Tensor& right) {
  return is_wanted && is_ours(left, 2) && is_ours(right, 2) && left.size(1) == right.size(0);
}

// Whether a start is spread over a matrix of that many rows and columns as PyTorch does: a matrix, a row, a column or a number.
bool fits(const at::Tensor& start, std::int64_t rows, std::int64_t columns) {
  const auto spreads = [&](std::int64_t dimension, std::int64_t size) {
    return start.dim() < dimension || start.size(-dimension) == size || start.size(-dimension) == 1;
  };
  return start.scalar_type() == at::kFloat && start.dim() <= 2 && spreads(1, columns) && spreads(2, rows);
}

// Writes `left · right`, or `*start + left · right`, into `out`, whose rows lie one after another. Both must fit.
void multiply_into(const at::Tensor& out, const at::Tensor* start, const at::Tensor& left, const at::Tensor& right) {
  const at::Tensor left_dense = dense(left), right_dense = dense(right);
  HostProduct product = product_of(left_dense, right_dense, out.mutable_data_ptr<float>());
  if (start != nullptr) {
    const auto stride = [&](std::int64_t dimension) {
      return start->dim() < dimension || start->size(-dimension) == 1 ? 0 : start->stride(-dimension);
    };
    product.start = start->const_data_ptr<float>();
    product.start_row = stride(2);
    product.start_column = stride(1);
  }
  multiply(product);
}

at::Tensor empty(std::int64_t rows, std::int64_t columns) {
  return at::detail::empty_cpu({rows, columns}, at::kFloat);
}

at::Tensor mm(const at::Tensor& left, const at::Tensor& right) {
  if (!fits(left, right)) {
    return at::cpu::mm(left, right);
  }
  at::Tensor out = empty(left.size(0), right.size(1));
  multiply_into(out, nullptr, left, right);
  return out;
}

at::Tensor addmm(
    const at::Tensor& start,
    const at::Tensor& left,
    const at::Tensor& right,
    const at::Scalar& beta,
    const at::Scalar& alpha) {
  if (!fits(left, right) || !fits(start, left.size(0), right.size(1)) || !beta.equal(1) || !alpha.equal(1)) {
    return at::cpu::addmm(start, left, right, beta, alpha);
  }
  at::Tensor out = empty(left.size(0), right.size(1));
  multiply_into(out, &start, left, right);
  return out;
}

at::Tensor bmm(const at::Tensor& left, const at::Tensor& right) {
  if (!is_wanted || !is_ours(left, 3) || !is_ours(right, 3) || left.size(0) != right.size(0) ||
      left.size(2) != right.size(1)) {
    return at::cpu::bmm(left, right);
  }
  const std::int64_t count = left.size(0);
  at::Tensor out = at::detail::empty_cpu({count, left.size(1), right.size(2)}, at::kFloat);
  const at::Tensor left_dense = dense(left), right_dense = dense(right);
  const HostProduct first = product_of(left_dense, right_dense, out.mutable_data_ptr<float>());
  const std::int64_t left_step = left_dense.stride(0), right_step = right_dense.stride(0);
  const auto one = [&](std::int64_t index) {
    HostProduct product = first;
    product.left += index * left_step;
    product.right += index * right_step;
    product.out += index * first.rows * first.columns;
    return product;
  };
  // Many products have a thread each, few ones all threads each.
  const std::int64_t multiplications = first.rows * first.columns * first.depth * count;
  const std::int64_t threads =
      std::clamp<std::int64_t>(multiplications / kLeastPerThread, 1, at::get_num_threads());
  if (count < threads) {
    for (std::int64_t index = 0; index < count; ++index) {
      multiply(one(index));
    }
    return out;
  }
  on_threads(threads, [&](std::int64_t part) {
    for (std::int64_t index = count * part / threads; index < count * (part + 1) / threads; ++index) {
      const HostProduct product = one(index);
      kernel(&product);
    }
  });
  return out;
}

}  // namespace

bool products_are_ours() { return is_wanted; }

void product(at::Tensor& out, const at::Tensor& left, const at::Tensor& right) {
  if (fits(left, right)) {
    multiply_into(out, nullptr, left, right);
  } else {
    at::cpu::mm_out(out, left, right);
  }
}

void product(at::Tensor& out, const at::Tensor& start, const at::Tensor& left, const at::Tensor& right) {
  if (fits(left, right) && fits(start, left.size(0), right.size(1))) {
    multiply_into(out, &start, left, right);
  } else {
    at::cpu::addmm_out(out, start, left, right);
  }
}

namespace {

// libtorch says that a kernel is replaced, which is what is meant to happen.
struct Silent : c10::WarningHandler {
  void process(const c10::Warning&) override {}
};

void replace_kernels() {
  Silent silent;
  const c10::WarningUtils::WarningHandlerGuard guard(&silent);
  // For the life of the process: `is_wanted` says who uses them.
  static torch::Library library(torch::Library::IMPL, "aten", c10::DispatchKey::CPU, __FILE__, __LINE__);
  library.impl("mm", TORCH_FN(mm));
  library.impl("addmm", TORCH_FN(addmm));
  library.impl("bmm", TORCH_FN(bmm));
}

}  // namespace

extern "C" {

// From now on, f32 products on the calling thread are computed by `own`, or, if it is null, by libtorch. `previous` says
// whether they were by the former. One kernel a process.
int host_torch_products(HostProductKernel own, bool* previous) noexcept {
  return guarded([&] {
    if (own != nullptr) {
      std::call_once(registered, [&] {
        kernel = own;
        replace_kernels();
      });
    }
    *previous = is_wanted;
    is_wanted = own != nullptr;
  });
}

}  // extern "C"
