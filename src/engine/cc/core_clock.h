// The time as C-core reckons it.

#ifndef TOUCHDOWN_CORE_CLOCK_H
#define TOUCHDOWN_CORE_CLOCK_H

#include <stdint.h>
#include <time.h>

#include <algorithm>
#include <limits>

#include <grpc/support/time.h>

#include "src/core/lib/gprpp/time.h"

namespace touchdown {

// Times are nanoseconds of C-core's own clock. It runs as the system's monotonic clock
// does, some seconds ahead of it.
constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
constexpr int64_t kSecond = 1000 * 1000 * 1000;

inline int64_t Nanoseconds(int64_t seconds, int64_t rest) {
  return seconds >= kNever / kSecond ? kNever : seconds * kSecond + rest;
}

inline int64_t Later(int64_t time, int64_t by) {
  return by > kNever - time ? kNever : time + by;
}

inline int64_t Now() {
  const gpr_timespec now = gpr_now(GPR_CLOCK_MONOTONIC);
  return Nanoseconds(now.tv_sec, now.tv_nsec);
}

// C-core rounds what is now down to milliseconds: from this moment on, `deadline` has
// come.
inline int64_t At(grpc_core::Timestamp deadline) {
  const gpr_timespec time = deadline.as_timespec(GPR_CLOCK_MONOTONIC);
  return Nanoseconds(time.tv_sec, time.tv_nsec);
}

// The same moment as the system tells it. Not too early: the system's time is read last.
inline timespec SystemTime(int64_t time) {
  const int64_t left = std::max<int64_t>(time - Now(), 0);
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  const int64_t at = Later(Nanoseconds(now.tv_sec, now.tv_nsec), left);
  const int64_t most = std::numeric_limits<time_t>::max();
  timespec it;
  it.tv_sec = static_cast<time_t>(std::min(at / kSecond, most));
  it.tv_nsec = static_cast<long>(at % kSecond);
  return it;
}

}  // namespace touchdown

#endif  // TOUCHDOWN_CORE_CLOCK_H
