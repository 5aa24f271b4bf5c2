// Declares what c10d's header names of gloo.
//
// libtorch has gloo inside and c10d's header for it, but not gloo's own headers. c10d's header keeps gloo's types only by
// pointer, so that their names are enough. A libtorch that uses more of them does not compile with these, and one whose class
// has another size is refused in c10d.cpp.
#pragma once

#include <chrono>

namespace gloo {

class Context {
 public:
  // Named by an inline function that nothing here calls.
  void setTimeout(std::chrono::milliseconds timeout);
};

}  // namespace gloo
