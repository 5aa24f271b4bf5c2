// Declares what c10d's header names of gloo; see context.h.
#pragma once

namespace gloo::transport {

class Device;
// Complete, since c10d's header has a unique_ptr to one.
class UnboundBuffer {
 public:
  virtual ~UnboundBuffer() = default;
};

}  // namespace gloo::transport
