// Where the frames are in what one side of an HTTP/2 connection sends. Inline: a call of its own for each
// piece of each frame would be felt.

#ifndef TOUCHDOWN_FRAMES_H
#define TOUCHDOWN_FRAMES_H

#include <endian.h>
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
    if (header_count_ == 0 && count >= sizeof(header_)) {
      // Most often. The compiler knows how much this is.
      memcpy(header_, bytes, sizeof(header_));
      header_count_ = count = sizeof(header_);
    } else {
      count = std::min(count, sizeof(header_) - header_count_);
      memcpy(header_ + header_count_, bytes, count);
      header_count_ += count;
    }
    if (header_count_ == sizeof(header_)) {
      memcpy(&head_, header_, sizeof(head_));
      head_ = be64toh(head_);
      stream_ = (static_cast<uint32_t>(head_) << 8 | header_[8]) & 0x7fffffff;
      payload_left_ = head_ >> 40;
      first_seen_ = first_seen_ || payload_left_ == 0;
      // HEADERS and CONTINUATION, until END_HEADERS.
      if (kind() == 1 || kind() == 9) in_block_ = (flags() & 4) == 0;
    }
    return count;
  }

  // Whether a frame that begins like this may be HEADERS.
  static bool MayBeHeaders(const uint8_t* bytes, size_t count) {
    return count < 4 || bytes[3] == 1;
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
  // Headers that have begun are not whole.
  bool InHeaders() const {
    return in_block_ || (payload_left_ > 0 && (kind() == 1 || kind() == 9));
  }
  // The next byte is one of a header.
  bool AtHeader() const { return payload_left_ == 0; }
  bool HeaderComplete() const { return header_count_ == sizeof(header_); }
  const uint8_t* header() const { return header_; }
  // The frame belongs to the stream below.
  void Divert() {
    header_[8] &= 0xfe;
    stream_ &= ~uint32_t{1};
  }
  size_t header_count() const { return header_count_; }

  // All below are about the frame whose header is complete.

  // Its length, kind and flags, and of its stream all but the last byte: the first eight bytes of the header.
  uint64_t head() const { return head_; }
  // An ack has one length only.
  bool IsPingAck() const { return head_ >> 40 == 8 && kind() == 6 && (flags() & 1) != 0; }
  bool IsPing() const { return kind() == 6 && (flags() & 1) == 0; }
  bool IsGoaway() const { return kind() == 7; }
  bool IsReset() const { return kind() == 3; }
  bool IsSettings() const { return kind() == 4; }
  bool IsContinuation() const { return kind() == 9; }
  bool IsHeaders() const { return kind() == 1; }
  bool IsData() const { return kind() == 0; }
  // Of DATA and HEADERS: whether it is the last of its side.
  bool IsEnd() const { return kind() <= 1 && (flags() & 1) != 0; }
  uint32_t stream() const { return stream_; }
  size_t payload_left() const { return payload_left_; }
  // DATA, HEADERS or CONTINUATION.
  bool IsOfCall() const { return kind() <= 1 || kind() == 9; }

 private:
  uint8_t kind() const { return static_cast<uint8_t>(head_ >> 32); }
  uint8_t flags() const { return static_cast<uint8_t>(head_ >> 24); }

  size_t preface_left_;
  bool first_seen_ = false;
  bool in_block_ = false;
  size_t payload_left_ = 0;
  size_t header_count_ = 0;
  uint64_t head_ = 0;
  uint32_t stream_ = 0;
  uint8_t header_[9];
};

}  // namespace touchdown

#endif  // TOUCHDOWN_FRAMES_H
