// The operators that libtorch runs, with their times. The rules of shim.cpp apply.

#include "guarded.h"

#include <ATen/record_function.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace {

// More operators than a step has; whoever records for longer without reading loses the rest.
constexpr std::size_t kMost = 1000000;

struct Operator {
  std::string name;
  std::int64_t began;
  std::int64_t nanoseconds;
};

struct Running : at::ObserverContext {
  std::int64_t began = 0;
};

// libtorch passes the callback on to the threads of a backward pass, so that several of them may write.
std::mutex mutex;
std::vector<Operator> recorded;
// Of the training thread, which begins and ends.
std::optional<at::CallbackHandle> handle;

std::int64_t now() {
  const auto since = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(since).count();
}

std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction&) {
  auto running = std::make_unique<Running>();
  running->began = now();
  return running;
}

void end(const at::RecordFunction& function, at::ObserverContext* context) {
  const std::int64_t ended = now();
  const auto* running = static_cast<Running*>(context);
  const std::lock_guard<std::mutex> lock(mutex);
  if (running != nullptr && recorded.size() < kMost) {
    recorded.push_back({function.name(), running->began, ended - running->began});
  }
}

}  // namespace

extern "C" {

// Nanoseconds of the clock that the operators' times are of.
std::int64_t host_torch_now() noexcept { return now(); }

// Records the operators of this thread from now on.
int host_torch_operators_begin() noexcept {
  return guarded([] {
    if (!handle) {
      handle = at::addThreadLocalCallback(
          at::RecordFunctionCallback(&begin, &end).scopes({at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION}));
    }
  });
}

// Records no more. On the thread that began.
int host_torch_operators_end() noexcept {
  return guarded([] {
    if (handle) {
      at::removeCallback(*handle);
      handle.reset();
    }
    const std::lock_guard<std::mutex> lock(mutex);
    recorded.clear();
  });
}

// Passes what was recorded since the last call to `visit`, in the order in which the operators ended.
int host_torch_operators_take(
    void* context,
    void (*visit)(void*, const char*, std::size_t, std::int64_t, std::int64_t)) noexcept {
  return guarded([&] {
    std::vector<Operator> taken;
    {
      const std::lock_guard<std::mutex> lock(mutex);
      taken.swap(recorded);
    }
    for (const Operator& one : taken) {
      visit(context, one.name.data(), one.name.size(), one.began, one.nanoseconds);
    }
  });
}

}  // extern "C"
