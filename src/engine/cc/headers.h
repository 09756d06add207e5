// What C-core remembers of headers whose values gRPC does not know.

#ifndef TOUCHDOWN_HEADERS_H
#define TOUCHDOWN_HEADERS_H

#include <grpc/impl/compression_types.h>

#include "src/core/lib/gprpp/time.h"

namespace touchdown {

// A grpc-timeout that is none, and the deadline that it makes. No other is in the infinite past: a timeout is not
// negative.
constexpr grpc_core::Duration kNoTimeout =
    grpc_core::Duration::NegativeInfinity();
constexpr grpc_core::Timestamp kNoDeadline = grpc_core::Timestamp::InfPast();

// A grpc-encoding that C-core does not know.
constexpr grpc_compression_algorithm kUnknownEncoding =
    GRPC_COMPRESS_ALGORITHMS_COUNT;

// Stands in the metadata of a call with a header that cannot be read: as a header that servers send, and clients do not.
constexpr grpc_core::Duration kFaulty = grpc_core::Duration::NegativeInfinity();

// Have the linker take headers.cc and hpack.cc in the places of C-core's files.
void ReadHeadersLeniently();
void ReadFaultyHeaders();

}  // namespace touchdown

#endif  // TOUCHDOWN_HEADERS_H
