// The processes of a run as the sources of this folder see them. The rules of shim.cpp apply.

#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>

#include <cstdint>

// Asked about once a second while an operation waits for other ranks; false gives up. Any thread that computes may ask.
using GoOnWaiting = bool (*)(void* context);

extern "C" {

struct HostGroup {
  c10::intrusive_ptr<c10d::Backend> backend;
  int rank, world_size;
  GoOnWaiting go_on;
  void* context;
};

}  // extern "C"

// Adds up `tensor` over all ranks in place, without waiting.
c10::intrusive_ptr<c10d::Work> start_all_reduce(const HostGroup& group, const at::Tensor& tensor);

// Everybody's `input` in the rows of `output`, without waiting.
c10::intrusive_ptr<c10d::Work> start_all_gather(const HostGroup& group, const at::Tensor& output, const at::Tensor& input);

// Waits for the end of `work`; throws where it failed, or where the group gives up.
void finish(const HostGroup& group, c10d::Work& work);
