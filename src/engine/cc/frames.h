// Where the frames are in what one side of an HTTP/2 connection sends. Inline: a call of its own for each
// piece of each frame would be felt.

#ifndef TOUCHDOWN_FRAMES_H
#define TOUCHDOWN_FRAMES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <algorithm>

namespace touchdown {

// Follows the frames in what a side sends (RFC 9113, 3.4 and 4.1).
class Frames {
 public:
  // A client begins with a preface, a server does not.
  explicit Frames(bool of_client) : preface_left_(of_client ? 24 : 0) {}

  // The bytes of a run that belong together: to one frame's header, to one
  // frame's payload, or to the preface.
  size_t Take(const uint8_t* bytes, size_t count) {
    if (preface_left_ > 0) {
      count = std::min(count, preface_left_);
      preface_left_ -= count;
      return count;
    }
    if (payload_left_ > 0) {
      count = std::min(count, payload_left_);
      payload_left_ -= count;
      first_seen_ = first_seen_ || payload_left_ == 0;
      return count;
    }
    if (header_count_ == sizeof(header_)) header_count_ = 0;
    count = std::min(count, sizeof(header_) - header_count_);
    memcpy(header_ + header_count_, bytes, count);
    header_count_ += count;
    if (header_count_ == sizeof(header_)) {
      payload_left_ = size_t{header_[0]} << 16 | size_t{header_[1]} << 8 |
                      size_t{header_[2]};
      first_seen_ = first_seen_ || payload_left_ == 0;
      // HEADERS and CONTINUATION, until END_HEADERS.
      if (header_[3] == 1 || header_[3] == 9) in_block_ = (header_[4] & 4) == 0;
    }
    return count;
  }

  bool InPreface() const { return preface_left_ > 0; }
  // Not a whole frame has been seen.
  bool BeforeFirst() const { return !first_seen_; }
  // Between two frames: nothing of the next has been seen, nor has it to be the rest of what
  // the last one has begun (RFC 9113, 6.10).
  bool AtBoundary() const {
    return preface_left_ == 0 && payload_left_ == 0 && !in_block_ &&
           (header_count_ == 0 || header_count_ == sizeof(header_));
  }
  // The next byte is one of a header.
  bool AtHeader() const { return payload_left_ == 0; }
  bool HeaderComplete() const { return header_count_ == sizeof(header_); }
  const uint8_t* header() const { return header_; }
  size_t header_count() const { return header_count_; }

  // All below are about the frame whose header is complete.

  // An ack has one length only.
  bool IsPingAck() const {
    return header_[0] == 0 && header_[1] == 0 && header_[2] == 8 &&
           header_[3] == 6 && (header_[4] & 1) != 0;
  }
  bool IsPing() const { return header_[3] == 6 && (header_[4] & 1) == 0; }
  bool IsGoaway() const { return header_[3] == 7; }
  bool IsReset() const { return header_[3] == 3; }
  bool IsHeaders() const { return header_[3] == 1; }
  bool IsData() const { return header_[3] == 0; }
  // Of DATA and HEADERS: whether it is the last of its side.
  bool IsEnd() const { return header_[3] <= 1 && (header_[4] & 1) != 0; }
  uint32_t stream() const {
    return (uint32_t{header_[5]} & 0x7f) << 24 | uint32_t{header_[6]} << 16 |
           uint32_t{header_[7]} << 8 | uint32_t{header_[8]};
  }
  size_t payload_left() const { return payload_left_; }
  // DATA, HEADERS or CONTINUATION.
  bool IsOfCall() const {
    return header_[3] == 0 || header_[3] == 1 || header_[3] == 9;
  }

 private:
  size_t preface_left_;
  bool first_seen_ = false;
  bool in_block_ = false;
  size_t payload_left_ = 0;
  size_t header_count_ = 0;
  uint8_t header_[9];
};

}  // namespace touchdown

#endif  // TOUCHDOWN_FRAMES_H
