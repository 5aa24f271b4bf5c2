// The processes of one run by libtorch's own engine, c10d: a store of keys, and operations over gloo. The rules of shim.cpp apply.

#define USE_C10D_GLOO 1

#include "c10d.h"
#include "guarded.h"

#include <ATen/core/grad_mode.h>
#include <c10/util/Logging.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

// gloo's own headers are not there (gloo_stubs): what c10d's class is made of must be what libtorch compiled.
static_assert(sizeof(c10d::ProcessGroupGloo) == 488, "this libtorch has another ProcessGroupGloo: look at gloo_stubs");

namespace {

// One operation may wait for ranks that are in a callback for hours: who watches the ranks ends it, not the clock.
constexpr std::chrono::milliseconds kUnbounded = std::chrono::hours(24 * 365);
constexpr std::chrono::milliseconds kAskEvery{1000};

std::string text(const char* data, std::size_t length) { return std::string(data, length); }

}  // namespace

void finish(const HostGroup& group, c10d::Work& work) {
  while (true) {
    try {
      work.wait(kAskEvery);
      return;
    } catch (const std::exception&) {
      if (work.isCompleted()) {
        throw;
      }
    }
    TORCH_CHECK(group.go_on(group.context), "the other processes are not waited for any longer");
  }
}

c10::intrusive_ptr<c10d::Work> start_all_reduce(const HostGroup& group, const at::Tensor& tensor) {
  std::vector<at::Tensor> tensors{tensor};
  c10d::AllreduceOptions options;
  options.timeout = kUnbounded;
  return group.backend->allreduce(tensors, options);
}

c10::intrusive_ptr<c10d::Work> start_all_gather(
    const HostGroup& group,
    const at::Tensor& output,
    const at::Tensor& input) {
  std::vector<std::vector<at::Tensor>> outputs{output.unbind(0)};
  std::vector<at::Tensor> inputs{input};
  c10d::AllgatherOptions options;
  options.timeout = kUnbounded;
  return group.backend->allgather(outputs, inputs, options);
}

extern "C" {

struct HostStore {
  c10::intrusive_ptr<c10d::Store> store;
};

// A store that this process serves or is a client of. A server takes over the listening socket `listening`, if it is not -1.
int host_torch_store_new(
    const char* host,
    std::size_t host_length,
    std::uint16_t port,
    bool serves,
    int listening,
    std::int64_t timeout,
    HostStore** store) noexcept {
  return guarded([&] {
    // Its warnings and errors about connections are C++ stack traces; they are thrown, too, and told in a sentence.
    FLAGS_caffe2_log_level = std::max(FLAGS_caffe2_log_level, c10::GLOG_FATAL);
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = serves;
    options.waitWorkers = false;
    options.timeout = std::chrono::milliseconds(timeout);
    if (listening >= 0) {
      options.masterListenFd = listening;
    }
    *store = new HostStore{c10::make_intrusive<c10d::TCPStore>(text(host, host_length), options)};
  });
}

// Another connection to the same store, whose keys begin with `prefix`, if that is not empty.
int host_torch_store_prefixed(
    HostStore* store,
    const char* prefix,
    std::size_t length,
    HostStore** prefixed) noexcept {
  return guarded([&] {
    c10::intrusive_ptr<c10d::Store> own = store->store->clone();
    if (length > 0) {
      own = c10::make_intrusive<c10d::PrefixStore>(text(prefix, length), std::move(own));
    }
    *prefixed = new HostStore{std::move(own)};
  });
}

void host_torch_store_free(HostStore* store) noexcept { delete store; }

int host_torch_store_set(
    HostStore* store,
    const char* key,
    std::size_t key_length,
    const std::uint8_t* value,
    std::size_t length) noexcept {
  return guarded([&] { store->store->set(text(key, key_length), std::vector<std::uint8_t>(value, value + length)); });
}

// Gives the value of a key to `visit`, if there is one. It never waits.
int host_torch_store_get(
    HostStore* store,
    const char* key,
    std::size_t key_length,
    void* context,
    void (*visit)(void* context, const std::uint8_t* value, std::size_t length)) noexcept {
  return guarded([&] {
    const std::string name = text(key, key_length);
    if (store->store->check({name})) {
      const std::vector<std::uint8_t> value = store->store->get(name);
      visit(context, value.data(), value.size());
    }
  });
}

// A group over gloo, when every rank is there. `interface_address` is that of the interface to use; empty for libtorch's choice, as
// GLOO_SOCKET_IFNAME says.
int host_torch_group_new(
    HostStore* store,
    int rank,
    int world_size,
    const char* interface_address,
    std::size_t length,
    std::int64_t timeout,
    GoOnWaiting go_on,
    void* context,
    HostGroup** group) noexcept {
  return guarded([&] {
    const std::chrono::milliseconds limit(timeout);
    c10::intrusive_ptr<c10d::ProcessGroupGloo::Options> options;
    if (length == 0) {
      options = c10d::ProcessGroupGloo::Options::create_default(limit);
    } else {
      options = c10d::ProcessGroupGloo::Options::create(limit);
      options->devices = {c10d::ProcessGroupGloo::createDeviceForHostname(text(interface_address, length))};
    }
    auto backend = c10::make_intrusive<c10d::ProcessGroupGloo>(store->store, rank, world_size, std::move(options));
    *group = new HostGroup{std::move(backend), rank, world_size, go_on, context};
  });
}

void host_torch_group_free(HostGroup* group) noexcept { delete group; }

// Everybody's `input` in the rows of `output`.
int host_torch_group_all_gather(HostGroup* group, const at::Tensor* output, const at::Tensor* input) noexcept {
  return guarded([&] { finish(*group, *start_all_gather(*group, *output, *input)); });
}

// Copies tensors of rank zero to all, in place, those of one dtype together.
int host_torch_group_broadcast(HostGroup* group, const at::Tensor* const* tensors, std::size_t count) noexcept {
  return guarded([&] {
    const at::NoGradGuard no_grad;
    std::vector<std::pair<at::ScalarType, std::vector<at::Tensor>>> by_dtype;
    for (std::size_t index = 0; index < count; ++index) {
      const at::Tensor tensor = tensors[index]->detach();
      const auto same = [&](const auto& group) { return group.first == tensor.scalar_type(); };
      auto found = std::find_if(by_dtype.begin(), by_dtype.end(), same);
      if (found == by_dtype.end()) {
        found = by_dtype.insert(by_dtype.end(), {tensor.scalar_type(), {}});
      }
      found->second.push_back(tensor);
    }
    for (const auto& [dtype, together] : by_dtype) {
      std::vector<at::Tensor> rows;
      for (const at::Tensor& tensor : together) {
        rows.push_back(tensor.reshape({-1}));
      }
      std::vector<at::Tensor> flat{at::cat(rows)};
      c10d::BroadcastOptions options;
      options.timeout = kUnbounded;
      finish(*group, *group->backend->broadcast(flat, options));
      std::int64_t start = 0;
      for (const at::Tensor& tensor : together) {
        tensor.copy_(flat[0].narrow(0, start, tensor.numel()).view(tensor.sizes()));
        start += tensor.numel();
      }
    }
  });
}

}  // extern "C"
