// Which calls of a connection are open.

#ifndef TOUCHDOWN_OPEN_CALLS_H
#define TOUCHDOWN_OPEN_CALLS_H

#include <stddef.h>
#include <stdint.h>

#include <algorithm>
#include <vector>

namespace touchdown {

// The calls of a connection of which no side has sent the end: their streams, in order.
class OpenCalls {
 public:
  void Begin(uint32_t stream) {
    // What comes again with HEADERS are trailers; clients have no even streams.
    if (stream <= last_ || stream % 2 == 0) return;
    last_ = stream;
    ++count_;
    streams_.push_back(stream);
  }
  // Whether it was open.
  bool End(uint32_t stream) {
    const auto it = std::lower_bound(streams_.begin(), streams_.end(), stream);
    if (it == streams_.end() || *it != stream) return false;
    streams_.erase(it);
    return true;
  }
  size_t open() const { return streams_.size(); }
  uint64_t count() const { return count_; }

 private:
  std::vector<uint32_t> streams_;
  uint32_t last_ = 0;
  uint64_t count_ = 0;
};

}  // namespace touchdown

#endif  // TOUCHDOWN_OPEN_CALLS_H
