// Which calls of a connection are open, and which of them stand still.

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
  // Smaller pieces of a message do not count as progress: a look for the stream of each would be felt.
  static constexpr size_t kLeastPiece = 256;

  // Whether it is a new one.
  bool Begin(uint32_t stream) {
    // What comes again with HEADERS are trailers; clients have no even streams.
    if (stream <= last_ || stream % 2 == 0 || stream > end_) return false;
    last_ = stream;
    ++count_;
    calls_.push_back({stream, 0, 0});
    return true;
  }
  // Those above this one do not begin.
  void Stop(uint32_t end) { end_ = end; }
  // Whether it was open.
  bool End(uint32_t stream) {
    const size_t place = Place(stream);
    if (place == calls_.size()) return false;
    calls_.erase(calls_.begin() + place);
    return true;
  }
  bool IsOpen(uint32_t stream) const { return Place(stream) < calls_.size(); }
  uint32_t last() const { return last_; }
  // So many bytes of a message have passed, either way.
  void Move(uint32_t stream, size_t bytes) {
    const size_t place = Place(stream);
    if (place == calls_.size()) return;
    uint32_t* moved = &calls_[place].moved;
    *moved += static_cast<uint32_t>(std::min<size_t>(bytes, UINT32_MAX - *moved));
  }
  // A span of time is over. A call of which fewer bytes than `least` have passed in it stood still for it;
  // unless nothing could pass, for which the spans do not count. Returns how many calls have stood still for
  // `spans` or more, one after the other.
  size_t PassSpan(uint32_t least, bool counts, uint8_t spans) {
    size_t still = 0;
    for (Call& it : calls_) {
      if (it.moved >= least) {
        it.still = 0;
      } else if (counts && it.still < UINT8_MAX) {
        ++it.still;
      }
      it.moved = 0;
      still += it.still >= spans ? 1 : 0;
    }
    return still;
  }
  size_t open() const { return calls_.size(); }
  // The one that has begun last, of those that are open.
  uint32_t newest() const { return calls_.back().stream; }
  uint64_t count() const { return count_; }

 private:
  struct Call {
    uint32_t stream;
    uint32_t moved;  // bytes, in the span of time that is under way
    uint8_t still;   // for how many spans it has stood still
  };

  // Where it stands; how many there are, if it does not.
  size_t Place(uint32_t stream) const {
    const size_t count = calls_.size();
    if (count == 0) return 0;
    // What is asked for is most often the call that has just begun, or the one that has been open the longest.
    if (calls_[count - 1].stream == stream) return count - 1;
    if (calls_[0].stream == stream) return 0;
    const auto it = std::lower_bound(
        calls_.begin(), calls_.end(), stream,
        [](const Call& call, uint32_t stream) { return call.stream < stream; });
    return it != calls_.end() && it->stream == stream ? it - calls_.begin() : count;
  }

  std::vector<Call> calls_;
  uint32_t last_ = 0;
  uint32_t end_ = UINT32_MAX;
  uint64_t count_ = 0;
};

}  // namespace touchdown

#endif  // TOUCHDOWN_OPEN_CALLS_H
