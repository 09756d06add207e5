// The functions of one layout, whose name is TOUCHDOWN_LAYOUT; see messages.cc. Included for each layout.

#ifndef TOUCHDOWN_NAME
#define TOUCHDOWN_JOIN(name, layout) touchdown_##name##_##layout
#define TOUCHDOWN_JOIN_VALUES(name, layout) TOUCHDOWN_JOIN(name, layout)
#define TOUCHDOWN_NAME(name) TOUCHDOWN_JOIN_VALUES(name, TOUCHDOWN_LAYOUT)
#endif

// C-core's own.
absl::Status TOUCHDOWN_NAME(begin_frame)(uint8_t flags, uint32_t id,
                                         grpc_chttp2_stream* s);
grpc_error_handle TOUCHDOWN_NAME(parse)(void* parser, grpc_chttp2_transport* t,
                                        grpc_chttp2_stream* s,
                                        const grpc_slice& slice, int is_last);
void TOUCHDOWN_NAME(encode)(uint32_t id, grpc_slice_buffer* inbuf,
                            uint32_t write_bytes, int is_eof,
                            grpc_transport_one_way_stats* stats,
                            grpc_slice_buffer* outbuf);
grpc_core::Poll<grpc_error_handle> TOUCHDOWN_NAME(deframe)(
    grpc_chttp2_stream* s, int64_t* min_progress_size,
    grpc_core::SliceBuffer* stream_out, uint32_t* message_flags);

// In the place of the last.
grpc_core::Poll<grpc_error_handle> TOUCHDOWN_NAME(read)(
    grpc_chttp2_stream* s, int64_t* min_progress_size,
    grpc_core::SliceBuffer* stream_out, uint32_t* message_flags);
