// What C-core makes of headers whose values gRPC does not know.
//
// C-core resets the stream of a call with such a value, so that its caller never learns why. Here the value is
// remembered as one that is not known, and the filter refuses the call with a status (filters.cc).
//
// This takes the place of one of C-core's files, and is made of that file: what is not replaced is as it was, and what
// is has another name. The linker finds this before C-core's own, as it does without_client.cc. Clients read responses
// by the same functions: there, too, a value that is not known no longer costs the stream.
//
// Compiled without NDEBUG, as shim.cc is. Nothing in that file depends on it.

#include "headers.h"

#include "src/core/lib/transport/metadata_batch.h"

namespace grpc_core {

// Those of C-core's that are replaced, or that stand beside one that is.
struct CoreContentType : public ContentTypeMetadata {
  static MementoType ParseMemento(Slice value, MetadataParseErrorFn on_error);
  static StaticSlice Encode(ValueType x);
  static const char* DisplayValue(ValueType x);
};

struct CoreTimeout : public GrpcTimeoutMetadata {
  static MementoType ParseMemento(Slice value, MetadataParseErrorFn on_error);
  static ValueType MementoToValue(MementoType timeout);
  static Slice Encode(ValueType x);
};

struct CoreMethod : public HttpMethodMetadata {
  static MementoType ParseMemento(Slice value, MetadataParseErrorFn on_error);
  static StaticSlice Encode(ValueType x);
  static const char* DisplayValue(ValueType x);
};

struct CoreEncoding : public CompressionAlgorithmBasedMetadata {
  static MementoType ParseMemento(Slice value, MetadataParseErrorFn on_error);
};

}  // namespace grpc_core

#define ContentTypeMetadata CoreContentType
#define GrpcTimeoutMetadata CoreTimeout
#define HttpMethodMetadata CoreMethod
#define CompressionAlgorithmBasedMetadata CoreEncoding
#include "src/core/lib/transport/metadata_batch.cc"
#undef ContentTypeMetadata
#undef GrpcTimeoutMetadata
#undef HttpMethodMetadata
#undef CompressionAlgorithmBasedMetadata

void touchdown::ReadHeadersLeniently() {}

namespace grpc_core {
namespace {

// "at most 8 digits", says gRPC's PROTOCOL-HTTP2.md.
constexpr size_t kDigits = 8;

bool IsTimeout(absl::string_view text) {
  if (text.size() < 2 || text.size() > kDigits + 1) return false;
  for (char digit : text.substr(0, text.size() - 1)) {
    if (digit < '0' || digit > '9') return false;
  }
  return absl::string_view("HMSmun").find(text.back()) !=
         absl::string_view::npos;
}

void Ignore(absl::string_view, const Slice&) {}

}  // namespace

ContentTypeMetadata::MementoType ContentTypeMetadata::ParseMemento(
    Slice value, MetadataParseErrorFn) {
  return CoreContentType::ParseMemento(std::move(value), Ignore);
}

StaticSlice ContentTypeMetadata::Encode(ValueType x) {
  return CoreContentType::Encode(x);
}

const char* ContentTypeMetadata::DisplayValue(ValueType x) {
  return CoreContentType::DisplayValue(x);
}

GrpcTimeoutMetadata::MementoType GrpcTimeoutMetadata::ParseMemento(
    Slice value, MetadataParseErrorFn on_error) {
  if (!IsTimeout(value.as_string_view())) return touchdown::kNoTimeout;
  return CoreTimeout::ParseMemento(std::move(value), on_error);
}

GrpcTimeoutMetadata::ValueType GrpcTimeoutMetadata::MementoToValue(
    MementoType timeout) {
  if (timeout == touchdown::kNoTimeout) return touchdown::kNoDeadline;
  // C-core reckons in milliseconds, and could leave a part of one.
  if (timeout == Duration::Zero()) return Timestamp::ProcessEpoch();
  return CoreTimeout::MementoToValue(timeout);
}

Slice GrpcTimeoutMetadata::Encode(ValueType x) {
  return CoreTimeout::Encode(x);
}

HttpMethodMetadata::MementoType HttpMethodMetadata::ParseMemento(
    Slice value, MetadataParseErrorFn) {
  return CoreMethod::ParseMemento(std::move(value), Ignore);
}

StaticSlice HttpMethodMetadata::Encode(ValueType x) {
  return CoreMethod::Encode(x);
}

const char* HttpMethodMetadata::DisplayValue(ValueType x) {
  return CoreMethod::DisplayValue(x);
}

CompressionAlgorithmBasedMetadata::MementoType
CompressionAlgorithmBasedMetadata::ParseMemento(Slice value,
                                                MetadataParseErrorFn) {
  return ParseCompressionAlgorithm(value.as_string_view())
      .value_or(touchdown::kUnknownEncoding);
}

}  // namespace grpc_core
