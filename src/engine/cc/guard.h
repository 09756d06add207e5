// Who judges what the peer of a connection sends, as C++ has it.

#ifndef TOUCHDOWN_GUARD_H
#define TOUCHDOWN_GUARD_H

#include <stddef.h>
#include <stdint.h>

#include "frames.h"
#include "shim.h"
#include "src/core/lib/gprpp/time.h"

namespace touchdown {

// Owns the guard of one connection: see `touchdown_guard_functions`.
class Guard {
 public:
  Guard(const touchdown_guard_functions& functions, touchdown_guard* guard)
      : functions_(functions), guard_(guard) {}
  ~Guard() { functions_.destroy(guard_); }
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

  touchdown_verdict Begins(const Frames& frames, bool is_open,
                           grpc_core::Timestamp now) {
    return functions_.begins(guard_, frames.head(), frames.stream(), is_open,
                             Milliseconds(now));
  }
  touchdown_verdict GoesOn(uint8_t* bytes, size_t count) {
    return functions_.goes_on(guard_, bytes, count);
  }
  touchdown_verdict Written(uint32_t frames, uint64_t data, uint32_t resets,
                            grpc_core::Timestamp now) {
    return functions_.written(guard_, frames, data, resets, Milliseconds(now));
  }
  void Ended(uint32_t stream) { functions_.ended(guard_, stream); }
  touchdown_verdict Overdue(bool are_headers) {
    return functions_.overdue(guard_, are_headers);
  }
  const char* Fault(uint32_t* code) { return functions_.fault(guard_, code); }

 private:
  static uint64_t Milliseconds(grpc_core::Timestamp time) {
    return static_cast<uint64_t>(time.milliseconds_after_process_epoch());
  }

  const touchdown_guard_functions& functions_;
  touchdown_guard* const guard_;
};

}  // namespace touchdown

#endif  // TOUCHDOWN_GUARD_H
