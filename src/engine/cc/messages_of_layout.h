// The functions of one layout: C-core's own from their file, under other names, and one in the place of the last of
// them. Included once for each layout; see messages.cc.

#include <string.h>

#include <algorithm>

#include "messages.h"
#include "shim.h"
#include "src/core/ext/transport/chttp2/transport/frame_data.h"
#include "src/core/ext/transport/chttp2/transport/internal.h"

#include "messages_names.h"

#define grpc_chttp2_data_parser_begin_frame TOUCHDOWN_NAME(begin_frame)
#define grpc_chttp2_data_parser_parse TOUCHDOWN_NAME(parse)
#define grpc_chttp2_encode_data TOUCHDOWN_NAME(encode)
#define grpc_deframe_unprocessed_incoming_frames TOUCHDOWN_NAME(deframe)
#include "src/core/ext/transport/chttp2/transport/frame_data.cc"
#undef grpc_chttp2_data_parser_begin_frame
#undef grpc_chttp2_data_parser_parse
#undef grpc_chttp2_encode_data
#undef grpc_deframe_unprocessed_incoming_frames

// Called when something has come and when the request has ended, as long as somebody waits for a message. Something is
// in `frame_storage`, then.
grpc_core::Poll<grpc_error_handle> TOUCHDOWN_NAME(read)(
    grpc_chttp2_stream* s, int64_t* min_progress_size,
    grpc_core::SliceBuffer* stream_out, uint32_t* message_flags) {
  using touchdown::Flaw;
  // A client has anything there: C-core's retries leave it as the memory was, which may have been that of a server's call.
  const uint32_t call = s->t->is_client ? 0 : *message_flags;
  if ((call & touchdown::kIsServersMask) != touchdown::kIsServers) {
    return TOUCHDOWN_NAME(deframe)(s, min_progress_size, stream_out,
                                   message_flags);
  }
  grpc_slice_buffer* storage = &s->frame_storage;
  // Its caller has ended the request. A stream that was reset is closed, and has not seen that.
  const bool is_ended = s->read_closed && s->eos_received;
  auto flawed = [&](Flaw flaw) -> grpc_core::Poll<grpc_error_handle> {
    grpc_slice_buffer_reset_and_unref(storage);
    grpc_slice_buffer_add(
        stream_out->c_slice_buffer(),
        grpc_slice_from_static_buffer(
            &touchdown_flaws[static_cast<size_t>(flaw)], 1));
    *message_flags = 0;
    *min_progress_size = 0;
    return absl::OkStatus();
  };
  uint8_t prefix[5];
  const size_t known = std::min(storage->length, sizeof(prefix));
  // Most often all of it is in one slice.
  const grpc_slice& first = storage->slices[0];
  if (GRPC_SLICE_LENGTH(first) >= sizeof(prefix)) {
    memcpy(prefix, GRPC_SLICE_START_PTR(first), sizeof(prefix));
  } else {
    size_t copied = 0;
    for (size_t i = 0; copied < known; ++i) {
      const grpc_slice& slice = storage->slices[i];
      const size_t part = std::min(GRPC_SLICE_LENGTH(slice), known - copied);
      memcpy(prefix + copied, GRPC_SLICE_START_PTR(slice), part);
      copied += part;
    }
  }
  if (prefix[0] > 1) return flawed(Flaw::kFlag);
  if (prefix[0] == 1 && (call & touchdown::kHasEncoding) == 0) {
    return flawed(Flaw::kNoEncoding);
  }
  int64_t missing = sizeof(prefix) - known;
  int64_t length = 0;
  if (missing == 0) {
    // With the five bytes it may not fit into 32 bits.
    length = static_cast<int64_t>(prefix[1]) << 24 | static_cast<int64_t>(prefix[2]) << 16 |
             static_cast<int64_t>(prefix[3]) << 8 | static_cast<int64_t>(prefix[4]);
    missing = static_cast<int64_t>(sizeof(prefix)) + length -
              static_cast<int64_t>(storage->length);
  }
  if (missing > 0) {
    if (is_ended) return flawed(Flaw::kCutShort);
    *min_progress_size = missing;
    return grpc_core::Pending{};
  }
  // END_STREAM is not waited for: some clients send it late, in a frame of its own.
  if (missing < 0 && (call & touchdown::kHasOneRequest) != 0) {
    return flawed(Flaw::kMore);
  }
  // The rest is as C-core has it.
  *message_flags = prefix[0] == 0 ? 0 : GRPC_WRITE_INTERNAL_COMPRESS;
  *min_progress_size = 0;
  s->stats.incoming.framing_bytes += sizeof(prefix);
  s->stats.incoming.data_bytes += length;
  grpc_slice_buffer_move_first_into_buffer(storage, sizeof(prefix), prefix);
  grpc_slice_buffer_move_first(storage, length, stream_out->c_slice_buffer());
  return absl::OkStatus();
}
