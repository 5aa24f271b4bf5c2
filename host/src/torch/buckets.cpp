// Gradients summed over ranks in fixed buckets, while backward still computes others. The rules of shim.cpp apply.
//
// PyTorch's DistributedDataParallel (torch/csrc/distributed/c10d/reducer.cpp) lays its buckets anew after the first step, in the
// order in which gradients came, so that a resumed run sums in another order than an unbroken one. These are a function of the
// parameters only, from the last to the first.

#include "c10d.h"
#include "guarded.h"

#include <ATen/ScalarOps.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mul.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace {

// Numbers. A gradient begins where a cache line does.
constexpr std::int64_t kAlignment = 16;

std::int64_t aligned(std::int64_t count) { return (count + kAlignment - 1) / kAlignment * kAlignment; }

// Where a parameter's gradient lies.
struct Place {
  std::size_t bucket;
  std::int64_t offset;
};

struct Bucket {
  at::TensorOptions options;
  std::vector<std::size_t> members;
  std::int64_t length = 0;
  // Of the step.
  at::Tensor flat;
  std::size_t missing = 0;
  c10::intrusive_ptr<c10d::Work> work;
};

}  // namespace

extern "C" {

struct HostBuckets {
  const HostGroup* group;
  std::vector<at::Tensor> parameters;
  std::int64_t first_bytes, bytes;
  std::size_t slot_count;

  // The layout, of the parameters that learn.
  std::vector<bool> learns;
  std::vector<Place> places;
  std::vector<Bucket> buckets;
  // Where the slots begin in the last bucket: those of the caller, and one for each parameter, which counts the ranks that have a
  // gradient of it.
  std::int64_t slots_at = 0;

  // Of the step.
  bool armed = false;
  std::size_t started = 0;
  std::vector<bool> ready;
  std::vector<float> slots;
  double scale = 1;
};

}  // extern "C"

namespace {

// Tells the buckets of a gradient that is complete.
struct Hook final : torch::autograd::PostAccumulateGradHook {
  Hook(HostBuckets& buckets, std::size_t parameter) : buckets(buckets), parameter(parameter) {}
  void operator()(const torch::autograd::Variable& tensor) override;

  HostBuckets& buckets;
  std::size_t parameter;
};

void lay_out(HostBuckets& all) {
  all.learns.clear();
  all.buckets.clear();
  all.places.assign(all.parameters.size(), Place{});
  for (const at::Tensor& parameter : all.parameters) {
    all.learns.push_back(parameter.requires_grad());
  }
  std::int64_t left = 0;
  for (std::size_t index = all.parameters.size(); index-- > 0;) {
    if (!all.learns[index]) {
      continue;
    }
    const at::Tensor& parameter = all.parameters[index];
    const std::int64_t length = aligned(parameter.numel());
    const std::int64_t size = length * static_cast<std::int64_t>(parameter.element_size());
    const bool fits = !all.buckets.empty() && left >= size &&
        all.buckets.back().options.dtype() == parameter.dtype();
    if (!fits) {
      left = all.buckets.empty() ? all.first_bytes : all.bytes;
      all.buckets.push_back(Bucket{parameter.options().requires_grad(false)});
    }
    Bucket& bucket = all.buckets.back();
    all.places[index] = {all.buckets.size() - 1, bucket.length};
    bucket.members.push_back(index);
    bucket.length += length;
    left -= size;
  }
  if (all.buckets.empty() || all.buckets.back().options.dtype() != at::kFloat) {
    all.buckets.push_back(Bucket{at::TensorOptions().dtype(at::kFloat)});
  }
  all.slots_at = all.buckets.back().length;
  all.buckets.back().length += static_cast<std::int64_t>(all.slot_count + all.parameters.size());
}

at::Tensor gradient_in(const HostBuckets& all, std::size_t parameter) {
  const Place& place = all.places[parameter];
  const at::Tensor& own = all.parameters[parameter];
  return all.buckets[place.bucket].flat.narrow(0, place.offset, own.numel()).view(own.sizes());
}

at::Tensor& flat_of(Bucket& bucket) {
  if (!bucket.flat.defined()) {
    // What lies between the gradients is summed, too, and must be numbers.
    bucket.flat = at::empty({bucket.length}, bucket.options).zero_();
  }
  return bucket.flat;
}

// Starts the sums of the buckets that are complete, in their order, which is that of all ranks.
void start_complete(HostBuckets& all) {
  while (all.started < all.buckets.size() && all.buckets[all.started].missing == 0) {
    Bucket& bucket = all.buckets[all.started];
    at::Tensor& flat = flat_of(bucket);
    if (all.started + 1 == all.buckets.size()) {
      const std::int64_t count = static_cast<std::int64_t>(all.slots.size());
      flat.narrow(0, all.slots_at, count).copy_(at::from_blob(all.slots.data(), {count}, at::kFloat));
    }
    bucket.work = start_all_reduce(*all.group, flat);
    all.started += 1;
  }
}

void add(HostBuckets& all, std::size_t parameter, const at::Tensor& gradient) {
  all.ready[parameter] = true;
  Bucket& bucket = all.buckets[all.places[parameter].bucket];
  flat_of(bucket);
  at::Tensor place = gradient_in(all, parameter);
  if (all.scale == 1) {
    place.copy_(gradient);
  } else {
    at::mul_out(place, gradient, at::native::wrapped_scalar_tensor(all.scale));
  }
  all.slots[all.slot_count + parameter] = 1;
  bucket.missing -= 1;
}

void Hook::operator()(const torch::autograd::Variable& tensor) {
  if (!buckets.armed || buckets.ready[parameter] || !buckets.learns[parameter]) {
    return;
  }
  const at::NoGradGuard no_grad;
  add(buckets, parameter, tensor.grad());
  start_complete(buckets);
}

}  // namespace

extern "C" {

// Buckets for the gradients of `parameters`, which stay the same objects, of at most `bytes`, the first of `first_bytes`; larger
// gradients have one of their own. The group outlives them.
int host_torch_buckets_new(
    const HostGroup* group,
    const at::Tensor* const* parameters,
    std::size_t count,
    std::int64_t first_bytes,
    std::int64_t bytes,
    std::size_t slot_count,
    HostBuckets** buckets) noexcept {
  return guarded([&] {
    auto made = std::make_unique<HostBuckets>();
    made->group = group;
    made->first_bytes = first_bytes;
    made->bytes = bytes;
    made->slot_count = slot_count;
    for (std::size_t index = 0; index < count; ++index) {
      made->parameters.push_back(*parameters[index]);
      torch::autograd::impl::set_post_acc_grad_hooks(*parameters[index], std::make_unique<Hook>(*made, index));
    }
    lay_out(*made);
    *buckets = made.release();
  });
}

void host_torch_buckets_free(HostBuckets* buckets) noexcept {
  for (const at::Tensor& parameter : buckets->parameters) {
    torch::autograd::impl::set_post_acc_grad_hooks(parameter, nullptr);
  }
  delete buckets;
}

// From now on, each gradient that backward completes is one of the step's, times `scale`. `slots` are summed with the last of them.
int host_torch_buckets_begin(HostBuckets* buckets, const float* slots, std::size_t count, double scale) noexcept {
  return guarded([&] {
    TORCH_CHECK(count == buckets->slot_count, "there are ", buckets->slot_count, " slots, not ", count);
    for (std::size_t index = 0; index < buckets->parameters.size(); ++index) {
      if (buckets->parameters[index].requires_grad() != buckets->learns[index]) {
        lay_out(*buckets);
        break;
      }
    }
    for (Bucket& bucket : buckets->buckets) {
      bucket.flat.reset();
      bucket.work.reset();
      bucket.missing = bucket.members.size();
    }
    buckets->scale = scale;
    buckets->started = 0;
    buckets->ready.assign(buckets->parameters.size(), false);
    buckets->slots.assign(slots, slots + count);
    buckets->slots.resize(count + buckets->parameters.size(), 0);
    buckets->armed = true;
  });
}

// Waits for the sums, and makes them the gradients, divided by the first slot's sum. A parameter of which no rank has a gradient has
// none. Gives back the sums of the slots, and how many buckets had started before.
int host_torch_buckets_finish(HostBuckets* buckets, float* slots, std::size_t* overlapped) noexcept {
  return guarded([&] {
    const at::NoGradGuard no_grad;
    buckets->armed = false;
    *overlapped = buckets->started;
    for (std::size_t index = 0; index < buckets->parameters.size(); ++index) {
      if (buckets->ready[index] || !buckets->learns[index]) {
        continue;
      }
      const at::Tensor& gradient = buckets->parameters[index].grad();
      if (gradient.defined()) {
        add(*buckets, index, gradient);
      } else {
        buckets->buckets[buckets->places[index].bucket].missing -= 1;
      }
    }
    start_complete(*buckets);
    for (Bucket& bucket : buckets->buckets) {
      finish(*buckets->group, *bucket.work);
    }
    std::vector<float>& sums = buckets->slots;
    const std::int64_t count = static_cast<std::int64_t>(sums.size());
    at::from_blob(sums.data(), {count}, at::kFloat)
        .copy_(buckets->buckets.back().flat.narrow(0, buckets->slots_at, count));
    std::copy(sums.begin(), sums.begin() + static_cast<std::ptrdiff_t>(buckets->slot_count), slots);
    if (slots[0] != 1) {
      for (Bucket& bucket : buckets->buckets) {
        bucket.flat.div_(slots[0]);
      }
    }
    for (std::size_t index = 0; index < buckets->parameters.size(); ++index) {
      if (!buckets->learns[index]) {
        continue;
      }
      at::Tensor& gradient = buckets->parameters[index].mutable_grad();
      if (sums[buckets->slot_count + index] > 0) {
        gradient = gradient_in(*buckets, index);
      } else {
        gradient.reset();
      }
    }
    // The gradients hold their parts of the memory.
    for (Bucket& bucket : buckets->buckets) {
      bucket.flat.reset();
      bucket.work.reset();
    }
  });
}

}  // extern "C"
