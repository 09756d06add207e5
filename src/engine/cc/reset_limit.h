// How many calls a client may reset.

#ifndef TOUCHDOWN_RESET_LIMIT_H
#define TOUCHDOWN_RESET_LIMIT_H

#include <algorithm>

#include "src/core/lib/gprpp/time.h"

namespace touchdown {

// How many calls a client may reset on one connection, at once and per second. More
// is an attack: a call that is begun and reset costs the client next to nothing, does
// not count against the concurrent streams, and C-core takes in as many as come
// (CVE-2023-44487). nghttp2 allows 1000 and 33; clients of gRPC reset every call
// whose deadline passes, so they get more.
constexpr double kResetsAtOnce = 1000;
constexpr double kResetsPerSecond = 500;

// Counts the calls that the client of one connection resets.
class ResetLimit {
 public:
  // So many more were reset. Returns whether the connection is to be cut; once only.
  bool Exceeds(int resets) {
    const grpc_core::Timestamp now = grpc_core::Timestamp::Now();
    const double earned = (now - last_).seconds() * kResetsPerSecond;
    left_ = std::min(kResetsAtOnce, left_ + earned) - resets;
    last_ = now;
    if (left_ >= 0 || exceeded_) return false;
    exceeded_ = true;
    return true;
  }

 private:
  double left_ = kResetsAtOnce;
  grpc_core::Timestamp last_ = grpc_core::Timestamp::ProcessEpoch();
  bool exceeded_ = false;
};

}  // namespace touchdown

#endif  // TOUCHDOWN_RESET_LIMIT_H
