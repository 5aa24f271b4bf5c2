// Parts of an exported program that run in another mode: `torch.set_grad_enabled` and `torch.autocast`.

#pragma once

#include "autocast.h"

#include <ATen/core/grad_mode.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

// The mode of before is back when a region is destroyed.
class Region {
 public:
  virtual ~Region() = default;
};

class Gradients : public Region {
 public:
  explicit Gradients(bool enabled) : mode(enabled) {}

 private:
  at::AutoGradMode mode;
};

// As the context manager `torch.autocast` does it.
class Autocast : public Region {
 public:
  Autocast(at::DeviceType device, std::optional<at::ScalarType> dtype, bool enabled, bool cache)
      : device(device),
        was_enabled(at::autocast::is_autocast_enabled(device)),
        previous(at::autocast::get_autocast_dtype(device)),
        had_cache(at::autocast::is_autocast_cache_enabled()) {
    if (dtype) {
      at::autocast::set_autocast_dtype(device, *dtype);
    }
    at::autocast::set_autocast_enabled(device, enabled);
    at::autocast::set_autocast_cache_enabled(cache);
    at::autocast::increment_nesting();
  }

  ~Autocast() override {
    if (at::autocast::decrement_nesting() == 0) {
      at::autocast::clear_cache();
    }
    at::autocast::set_autocast_cache_enabled(had_cache);
    at::autocast::set_autocast_dtype(device, previous);
    at::autocast::set_autocast_enabled(device, was_enabled);
  }

 private:
  at::DeviceType device;
  bool was_enabled;
  at::ScalarType previous;
  bool had_cache;
};

// The regions that a run is in, the innermost last; they end in the reverse order, however the run ends.
class Regions {
 public:
  void enter(std::unique_ptr<Region> region) {
    regions.push_back(std::move(region));
  }

  void leave() {
    regions.pop_back();
  }

  ~Regions() {
    while (!regions.empty()) {
      regions.pop_back();
    }
  }

 private:
  std::vector<std::unique_ptr<Region>> regions;
};
