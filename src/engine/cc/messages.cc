// Takes the place of C-core's frame_data.cc, which reads and writes DATA frames. The linker finds this before C-core's
// own, as it does without_client.cc.
//
// C-core's own reading has three holes. A message with a flag byte that gRPC does not know comes as an empty one, or is
// left out. A request that ends in the midst of a message ends as if it had been whole. Of several messages to a method
// that takes one, the first is taken. Here each of these comes as a message that is known to be none (messages.h).
//
// The functions look into C-core's streams, which are laid out in one way with NDEBUG and in another without. So each
// is there twice, in messages_debug.cc and messages_release.cc, and this file takes those that fit the C-core that the
// program is linked with.

#include "messages.h"

#include "shim.h"
#include "src/core/ext/transport/chttp2/transport/frame_data.h"

void touchdown::ReadMessagesWithCare() {}

const uint8_t touchdown_flaws[4] = {0, 1, 2, 3};

#define TOUCHDOWN_LAYOUT debug
#include "messages_names.h"
#undef TOUCHDOWN_LAYOUT
#define TOUCHDOWN_LAYOUT release
#include "messages_names.h"
#undef TOUCHDOWN_LAYOUT

// C-core has this one without NDEBUG, and one with one parameter with it. It stands beside what uses these functions.
__attribute__((weak)) void grpc_chttp2_stream_ref(grpc_chttp2_stream* s,
                                                  const char* reason);

namespace {

inline bool IsForDebugging() { return &grpc_chttp2_stream_ref != nullptr; }

}  // namespace

absl::Status grpc_chttp2_data_parser_begin_frame(uint8_t flags, uint32_t id,
                                                 grpc_chttp2_stream* s) {
  return IsForDebugging() ? touchdown_begin_frame_debug(flags, id, s)
                          : touchdown_begin_frame_release(flags, id, s);
}

grpc_error_handle grpc_chttp2_data_parser_parse(void* parser,
                                                grpc_chttp2_transport* t,
                                                grpc_chttp2_stream* s,
                                                const grpc_slice& slice,
                                                int is_last) {
  return IsForDebugging()
             ? touchdown_parse_debug(parser, t, s, slice, is_last)
             : touchdown_parse_release(parser, t, s, slice, is_last);
}

void grpc_chttp2_encode_data(uint32_t id, grpc_slice_buffer* inbuf,
                             uint32_t write_bytes, int is_eof,
                             grpc_transport_one_way_stats* stats,
                             grpc_slice_buffer* outbuf) {
  // This one looks into no stream.
  touchdown_encode_release(id, inbuf, write_bytes, is_eof, stats, outbuf);
}

grpc_core::Poll<grpc_error_handle> grpc_deframe_unprocessed_incoming_frames(
    grpc_chttp2_stream* s, int64_t* min_progress_size,
    grpc_core::SliceBuffer* stream_out, uint32_t* message_flags) {
  return IsForDebugging()
             ? touchdown_read_debug(s, min_progress_size, stream_out,
                                    message_flags)
             : touchdown_read_release(s, min_progress_size, stream_out,
                                      message_flags);
}
