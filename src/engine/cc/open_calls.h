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
  // Whether it is a new one.
  bool Begin(uint32_t stream) {
    // What comes again with HEADERS are trailers; clients have no even streams.
    if (stream <= last_ || stream % 2 == 0 || stream > end_) return false;
    last_ = stream;
    ++count_;
    streams_.push_back(stream);
    return true;
  }
  // Those above this one do not begin.
  void Stop(uint32_t end) { end_ = end; }
  // Whether it was open.
  bool End(uint32_t stream) {
    const auto it = std::lower_bound(streams_.begin(), streams_.end(), stream);
    if (it == streams_.end() || *it != stream) return false;
    streams_.erase(it);
    return true;
  }
  bool IsOpen(uint32_t stream) const {
    return std::binary_search(streams_.begin(), streams_.end(), stream);
  }
  uint32_t last() const { return last_; }
  size_t open() const { return streams_.size(); }
  uint64_t count() const { return count_; }

 private:
  std::vector<uint32_t> streams_;
  uint32_t last_ = 0;
  uint32_t end_ = UINT32_MAX;
  uint64_t count_ = 0;
};

}  // namespace touchdown

#endif  // TOUCHDOWN_OPEN_CALLS_H
