// TorchScript modules: loading, their tensors, and a forward pass that computes the same bits each time. The rules of
// shim.cpp apply.

#include "guarded.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <caffe2/serialize/in_memory_adapter.h>
#include <caffe2/serialize/inline_container.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/python/update_graph_executor_opt.h>
#include <torch/csrc/jit/serialization/import.h>

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

namespace {

// A parameter or buffer, and the attribute that holds it.
struct Slot {
  std::string name;
  c10::intrusive_ptr<c10::ivalue::Object> owner;
  std::size_t index;
  at::Tensor tensor;
};

// The profiling executor observes some calls and then rewrites the graph, with other roundings. A resumed run, which
// would observe again from the start, would differ from an uninterrupted one. Without its optimizations, the operators
// run one by one, as in eager PyTorch.
struct Unoptimized {
  bool before = torch::jit::getGraphExecutorOptimize();
  Unoptimized() { torch::jit::setGraphExecutorOptimize(false); }
  ~Unoptimized() { torch::jit::setGraphExecutorOptimize(before); }
};

std::vector<Slot> slots_of(const torch::jit::Module& module) {
  std::vector<Slot> slots;
  // A tensor that two attributes share appears once, under its first name.
  std::unordered_set<const void*> seen;
  for (const auto& named : module.named_modules()) {
    const std::string prefix = named.name.empty() ? "" : named.name + ".";
    const auto owner = named.value._ivalue();
    const auto type = owner->type();
    for (std::size_t index = 0; index < type->numAttributes(); ++index) {
      if (!type->is_parameter(index) && !type->is_buffer(index)) {
        continue;
      }
      const c10::IValue& value = owner->getSlot(index);
      if (!value.isTensor() || !value.toTensor().defined() ||
          !seen.insert(value.toTensor().unsafeGetTensorImpl()).second) {
        continue;
      }
      slots.push_back({prefix + type->getAttributeName(index), owner, index, value.toTensor()});
    }
  }
  return slots;
}

} // namespace

extern "C" {

struct HostTorchScript {
  torch::jit::Module module;
  std::vector<Slot> slots;
  bool training;
};

// Passes the source of each of the module's classes to `visit`, as libtorch finds it; everything is borrowed. The bytes are the
// content of a file, of which nothing is executed.
int host_torch_script_code(
    const char* bytes,
    size_t size,
    void* context,
    void (*visit)(void* context, const char* name, size_t name_length, const char* text, size_t text_length)) noexcept {
  return guarded([&] {
    // Other formats that libtorch's `load` knows, too, hold their code elsewhere.
    if (size < 4 || std::memcmp(bytes, "PK\x03\x04", 4) != 0) {
      throw std::runtime_error("it is not a zip file");
    }
    caffe2::serialize::PyTorchStreamReader reader(
        std::make_shared<caffe2::serialize::MemoryReadAdapter>(bytes, static_cast<off_t>(size)));
    for (const std::string& name : reader.getAllRecords()) {
      // The reader does not tell upper from lower case.
      std::string lower = name;
      std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char letter) { return std::tolower(letter); });
      if (lower == "model.json") {
        throw std::runtime_error("PyTorch 1.0 or 1.1 wrote it");
      }
      if (lower.compare(0, 5, "code/") == 0) {
        const auto [data, length] = reader.getRecord(name);
        visit(context, name.data(), name.size(), static_cast<const char*>(data.get()), length);
      }
    }
  });
}

// The bytes are the content of a file. The module is in training mode at first.
int host_torch_script_load(const char* bytes, size_t size, int device, HostTorchScript** script) noexcept {
  return guarded([&] {
    const auto content = std::make_shared<caffe2::serialize::MemoryReadAdapter>(bytes, static_cast<off_t>(size));
    const at::Device where =
        device < 0 ? at::Device(at::kCPU) : at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(device));
    torch::jit::Module module = torch::jit::load(content, where);
    if (!module.find_method("forward")) {
      throw std::runtime_error("the module has no method `forward`");
    }
    module.train(true);
    auto slots = slots_of(module);
    *script = new HostTorchScript{std::move(module), std::move(slots), true};
  });
}

void host_torch_script_free(HostTorchScript* script) noexcept {
  delete script;
}

// Passes each parameter and buffer to `visit`, which owns the tensor; the name is borrowed.
int host_torch_script_tensors(
    const HostTorchScript* script,
    void* context,
    void (*visit)(void* context, const char* name, size_t length, at::Tensor* tensor)) noexcept {
  return guarded([&] {
    for (const Slot& slot : script->slots) {
      visit(context, slot.name.data(), slot.name.size(), new at::Tensor(slot.tensor));
    }
  });
}

int host_torch_script_forward(
    HostTorchScript* script,
    const at::Tensor* input,
    bool training,
    at::Tensor** output) noexcept {
  return guarded([&] {
    if (script->training != training) {
      script->module.train(training);
      script->training = training;
    }
    Unoptimized unoptimized;
    const c10::IValue result = script->module.forward({*input});
    if (!result.isTensor()) {
      throw std::runtime_error("`forward` returns a value of the type " + result.tagKind() + ", not a tensor");
    }
    if (training) {
      // A forward pass may replace a buffer by a new tensor. The host holds the old one: copy the value to it and put
      // it back.
      at::NoGradGuard no_grad;
      for (const Slot& slot : script->slots) {
        const c10::IValue& value = slot.owner->getSlot(slot.index);
        if (value.isTensor() && !value.toTensor().is_same(slot.tensor)) {
          slot.tensor.copy_(value.toTensor());
          slot.owner->setSlot(slot.index, slot.tensor);
        }
      }
    }
    *output = new at::Tensor(result.toTensor());
  });
}

} // extern "C"
