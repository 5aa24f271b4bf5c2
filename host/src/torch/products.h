// Matrix products below autograd, by the kernel of the thread: see products.cpp.

#pragma once

#include <ATen/core/Tensor.h>

// Whether products of f32 on this thread are computed by a kernel of ours.
bool products_are_ours();

// Writes `left · right` into `out`, a contiguous matrix of that shape: the bits of `at::mm`.
void product(at::Tensor& out, const at::Tensor& left, const at::Tensor& right);

// Writes `start + left · right` into `out`, as above; `start` may be `out`: the bits of `at::addmm`.
void product(at::Tensor& out, const at::Tensor& start, const at::Tensor& left, const at::Tensor& right);
