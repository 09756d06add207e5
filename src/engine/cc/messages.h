// What is a message of a call, and what is none: C-core's reading of DATA frames, with more care.

#ifndef TOUCHDOWN_MESSAGES_H
#define TOUCHDOWN_MESSAGES_H

#include <stdint.h>

namespace touchdown {

// What is known of a call whose messages are read. It stands where C-core writes the flags of the message, until it
// has written them. What C-core itself has there has none of the bits of `kIsServers`.
constexpr uint32_t kIsServers = 0x2d000000;
constexpr uint32_t kIsServersMask = 0x7f000000;
// The call has one request.
constexpr uint32_t kHasOneRequest = 1;
// The call has said how its messages are compressed, if they are.
constexpr uint32_t kHasEncoding = 2;

// What can be wrong with a message. In its place comes one of a single byte, the one with this number of
// `touchdown_flaws`: its address cannot come from a network.
enum class Flaw {
  // The byte in front of it is neither 0 nor 1.
  kFlag = 0,
  // It is compressed, and nobody has said how.
  kNoEncoding = 1,
  // The request has ended in its midst.
  kCutShort = 2,
  // Something is behind it already, in a call that has one request.
  kMore = 3,
};

// Has the linker take messages.cc in the place of C-core's file.
void ReadMessagesWithCare();

}  // namespace touchdown

#endif  // TOUCHDOWN_MESSAGES_H
