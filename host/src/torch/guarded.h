// Keeps C++ exceptions out of Rust. Shared by the translation units of this folder.

#pragma once

#include <c10/util/Exception.h>

#include <exception>
#include <string>

// The message of this thread's last failure.
inline thread_local std::string last_error;

// Runs `body` and returns 0, or 1 after storing the exception's message for `host_torch_last_error`.
template <class Body>
int guarded(Body&& body) noexcept {
  try {
    body();
    return 0;
  } catch (const c10::Error& error) {
    last_error = error.what_without_backtrace();
  } catch (const std::exception& error) {
    last_error = error.what();
  } catch (...) {
    last_error = "libtorch threw something that is not a std::exception";
  }
  return 1;
}
