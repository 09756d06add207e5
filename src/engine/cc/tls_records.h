// Where the records are in what one side of a TLS connection sends.

#ifndef TOUCHDOWN_TLS_RECORDS_H
#define TOUCHDOWN_TLS_RECORDS_H

#include <stddef.h>
#include <stdint.h>

#include <algorithm>

namespace touchdown {

// Follows the records in what a client sends (RFC 8446, 5.1; the same in TLS 1.2).
class Records {
 public:
  void Follow(const uint8_t* bytes, size_t count) {
    while (count > 0) {
      if (header_count_ < sizeof(header_)) {
        header_[header_count_++] = *bytes++;
        --count;
        left_ = size_t{header_[3]} << 8 | size_t{header_[4]};
      } else {
        const size_t taken = std::min(count, left_);
        left_ -= taken;
        payload_count_ += taken;
        bytes += taken;
        count -= taken;
      }
      if (header_count_ == sizeof(header_) && left_ == 0) {
        header_count_ = payload_count_ = 0;
      }
    }
  }

  // How many bytes have come in of the record that is not complete.
  size_t Incomplete() const { return header_count_ + payload_count_; }

 private:
  uint8_t header_[5];
  size_t header_count_ = 0;
  size_t payload_count_ = 0;
  size_t left_ = 0;
};

}  // namespace touchdown

#endif  // TOUCHDOWN_TLS_RECORDS_H
