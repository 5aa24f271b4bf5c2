// Layers in one pass each way, by kernels of ours: see fused.cpp.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

extern "C" {

// The kernels of fused/, which have these structs, too. Each computes the items from `first` to before `last`.
struct HostGelu {
  const float* input;
  float* output;
  float* derivative;
};
struct HostMultiply {
  const float* left;
  const float* right;
  float* out;
};
struct HostAttention {
  std::int64_t length;
  std::int64_t heads;
  std::int64_t features;
  float scale;
  bool causal;
  const float* projected;
  float* weights;
  float* output;
  float* gradient;
};
struct HostLayerNorm {
  std::int64_t width;
  float eps;
  const float* input;
  const float* other;
  float* sum;
  const float* weight;
  const float* bias;
  float* output;
  float* mean;
  float* inverse;
};
struct HostLayerNormBackward {
  std::int64_t rows;
  std::int64_t block;
  std::int64_t width;
  const float* input;
  const float* weight;
  const float* mean;
  const float* inverse;
  const float* of_output;
  const float* of_sum;
  float* of_input;
  float* shares;
};
struct HostCrossEntropy {
  std::int64_t classes;
  float weight;
  const float* outputs;
  const std::int64_t* targets;
  float* losses;
  float* gradient;
};
struct HostFused {
  void (*gelu)(const HostGelu*, std::int64_t first, std::int64_t last);
  void (*multiply)(const HostMultiply*, std::int64_t first, std::int64_t last);
  void (*attention)(const HostAttention*, std::int64_t first, std::int64_t last);
  void (*layer_norm)(const HostLayerNorm*, std::int64_t first, std::int64_t last);
  void (*layer_norm_backward)(const HostLayerNormBackward*, std::int64_t first, std::int64_t last);
  void (*cross_entropy)(const HostCrossEntropy*, std::int64_t first, std::int64_t last);
};

}  // extern "C"

// The kernels of this thread; null where libtorch's compute.
const HostFused* fused_kernels();

// Whether a layer of this input is computed by them, rather than by libtorch: by its dtype and layout.
bool fused_fits(const at::Tensor& input);

// Writes GELU and, if it is defined, its derivative, for a contiguous input.
void fused_gelu(const HostFused& kernels, const at::Tensor& input, at::Tensor& output, const at::Tensor& derivative);

// Writes `left × right`, all contiguous and of one shape; `out` may be a factor.
void fused_multiply(const HostFused& kernels, const at::Tensor& left, const at::Tensor& right, at::Tensor& out);

// Whether the mean loss of outputs, `[size, classes]`, is computed by these kernels: dtypes, layout, and the range of the classes.
bool fused_cross_entropy_fits(const at::Tensor& outputs, const at::Tensor& targets);

// The mean loss, a scalar; and its gradient, if that is defined.
at::Tensor fused_cross_entropy(
    const HostFused& kernels,
    const at::Tensor& outputs,
    const at::Tensor& targets,
    const at::Tensor& gradient);
