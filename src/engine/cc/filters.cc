// Compiled without NDEBUG, as shim.cc is, and careful in the same way.

#include "filters.h"

#include <limits.h>
#include <string.h>

#include <algorithm>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"

#include "closure.h"
#include "headers.h"
#include "messages.h"
#include "shim.h"
#include "src/core/lib/channel/channel_args.h"
#include "src/core/lib/channel/channel_stack.h"
#include "src/core/lib/channel/channel_stack_builder.h"
#include "src/core/lib/channel/context.h"
#include "src/core/lib/compression/compression_internal.h"
#include "src/core/lib/iomgr/error.h"
#include "src/core/lib/surface/call.h"
#include "src/core/lib/surface/channel_stack_type.h"
#include "src/core/lib/transport/http2_errors.h"
#include "src/core/lib/transport/metadata_batch.h"
#include "src/core/lib/transport/transport.h"

namespace touchdown {
namespace {

using grpc_core::ChannelStackBuilder;

// What HTTP and gRPC ask of a call's headers, and no more. C-core has four filters for a server's
// calls, each of them a coroutine that is driven from callbacks: together more
// than a third of all instructions of a small call. They
// - check and strip the request's pseudo headers, set those of the response, and
//   percent-encode the status message (http-server): here; the last in Rust;
// - compress and decompress messages, and limit their size (compression,
//   message_size): in Rust, where the decompressed size can be limited, too;
// - tell a tracer, if the program has one (server_call_tracer): nobody can set one.
struct HttpCall {
  grpc_metadata_batch* request;
  grpc_closure* next;
  grpc_closure on_request;
  // Why the headers are no call's, if so.
  touchdown_fault fault = TOUCHDOWN_NO_FAULT;
  // What the transport has to know of the call's messages: see messages.h.
  uint32_t messages = kIsServers | kHasOneRequest;
  // Whether a reply was given to the transport.
  bool has_replied = false;
};

// Where a call keeps the filter's part of it: C-core has this place, and puts nothing there.
constexpr grpc_context_index kContext = GRPC_CONTEXT_TRAFFIC;

HttpCall* PartOf(grpc_call* call) {
  return static_cast<HttpCall*>(grpc_call_context_get(call, kContext));
}

// See "Requests" in gRPC's PROTOCOL-HTTP2.md. What is found is taken out, so that nobody else acts on it.
touchdown_fault FaultOf(grpc_metadata_batch* request, HttpCall* call) {
  touchdown_fault fault = TOUCHDOWN_NO_FAULT;
  auto timeout = request->get(grpc_core::GrpcTimeoutMetadata());
  if (timeout.has_value() && *timeout == kNoDeadline) {
    request->Remove(grpc_core::GrpcTimeoutMetadata());
    fault = TOUCHDOWN_FAULT_TIMEOUT;
  }
  auto encoding = request->get(grpc_core::GrpcEncodingMetadata());
  if (encoding.has_value() && *encoding != GRPC_COMPRESS_NONE) {
    call->messages |= kHasEncoding;
    if (*encoding == kUnknownEncoding) {
      request->Remove(grpc_core::GrpcEncodingMetadata());
      fault = TOUCHDOWN_FAULT_ENCODING;
    }
  }
  if (request->get(grpc_core::GrpcRetryPushbackMsMetadata()) == touchdown::kFaulty) {
    fault = TOUCHDOWN_FAULT_HEADER;
  }
  // A GET may come from a link that somebody clicked on, and a request without a type from any page that is open in a
  // browser.
  if (request->get(grpc_core::ContentTypeMetadata()) !=
      grpc_core::ContentTypeMetadata::kApplicationGrpc) {
    fault = TOUCHDOWN_FAULT_CONTENT_TYPE;
  }
  if (request->get(grpc_core::HttpMethodMetadata()) !=
      grpc_core::HttpMethodMetadata::kPost) {
    fault = TOUCHDOWN_FAULT_METHOD;
  }
  return fault;
}

void OnRequest(void* arg, grpc_error_handle error) {
  HttpCall* call = static_cast<HttpCall*>(arg);
  grpc_core::Slice* path =
      call->request->get_pointer(grpc_core::HttpPathMetadata());
  if (error.ok() && path != nullptr) {
    call->fault = FaultOf(call->request, call);
    if (call->fault != TOUCHDOWN_NO_FAULT) {
      // It gets to a method that does not exist, so that there is an answer. The name of none begins so.
      *path = grpc_core::Slice::FromCopiedString(
          absl::StrCat("?", path->as_string_view()));
    }
  }
  // RFC 9113, 8.3.1: what comes from HTTP/1.1 may have this one instead.
  if (error.ok() && call->request->get_pointer(
                        grpc_core::HttpAuthorityMetadata()) == nullptr) {
    grpc_core::Slice* host =
        call->request->get_pointer(grpc_core::HostMetadata());
    call->request->Set(grpc_core::HttpAuthorityMetadata(),
                       grpc_core::Slice(host != nullptr
                                            ? grpc_slice_ref(host->c_slice())
                                            : grpc_empty_slice()));
  }
  // `Closure::Run` is not used: it is another function with NDEBUG.
  call->next->cb(call->next->cb_arg, std::move(error));
}

// What the engine can decompress. It compresses nothing.
const grpc_core::CompressionAlgorithmSet kEncodings = {
    GRPC_COMPRESS_NONE, GRPC_COMPRESS_DEFLATE, GRPC_COMPRESS_GZIP};

void SetHeaders(HttpCall* call, grpc_transport_stream_op_batch* batch) {
  grpc_metadata_batch* response =
      batch->payload->send_initial_metadata.send_initial_metadata;
  response->Set(grpc_core::HttpStatusMetadata(),
                call->fault == TOUCHDOWN_FAULT_CONTENT_TYPE ? 415 : 200);
  response->Set(grpc_core::ContentTypeMetadata(),
                grpc_core::ContentTypeMetadata::kApplicationGrpc);
  response->Set(grpc_core::GrpcAcceptEncodingMetadata(), kEncodings);
}

void StartBatch(grpc_call_element* element,
                grpc_transport_stream_op_batch* batch) {
  HttpCall* call = static_cast<HttpCall*>(element->call_data);
  if (batch->recv_message) {
    *batch->payload->recv_message.flags = call->messages;
  }
  if (batch->recv_initial_metadata) {
    auto& receive = batch->payload->recv_initial_metadata;
    call->request = receive.recv_initial_metadata;
    call->next = receive.recv_initial_metadata_ready;
    InitClosure(&call->on_request, OnRequest, call);
    receive.recv_initial_metadata_ready = &call->on_request;
  }
  if (batch->cancel_stream) {
    // The engine has sent the status of a call that it cancels, or nobody is there to
    // be told. With a status in the error (the code CANCELLED is one) C-core would send
    // trailers again, and strict clients drop the connection then.
    batch->payload->cancel_stream.cancel_error = grpc_error_set_int(
        absl::UnknownError("the call is over"),
        grpc_core::StatusIntProperty::kHttp2Error, GRPC_HTTP2_CANCEL);
  }
  if (batch->send_initial_metadata) SetHeaders(call, batch);
  if (batch->send_message) call->has_replied = true;
  if (batch->send_trailing_metadata && !call->has_replied) {
    // Of headers that have not gone out before there are trailers, C-core sends no more than two (Trailers-Only).
    batch->payload->send_trailing_metadata.send_trailing_metadata->Set(
        grpc_core::GrpcAcceptEncodingMetadata(), kEncodings);
  }
  grpc_call_next_op(element, batch);
}

const grpc_channel_filter kHttpFilter = {
    StartBatch,
    nullptr,  // no promises
    grpc_channel_next_op,
    sizeof(HttpCall),
    [](grpc_call_element* element, const grpc_call_element_args* args) {
      args->context[kContext].value = new (element->call_data) HttpCall();
      return absl::OkStatus();
    },
    grpc_call_stack_ignore_set_pollset_or_pollset_set,
    [](grpc_call_element*, const grpc_call_final_info*, grpc_closure*) {},
    0,
    [](grpc_channel_element*, grpc_channel_element_args*) {
      return absl::OkStatus();
    },
    grpc_channel_stack_no_post_init,
    [](grpc_channel_element*) {},
    grpc_channel_next_get_info,
    "touchdown",
};

bool ReplaceInStack(ChannelStackBuilder* builder) {
  if (!builder->channel_args().Contains(kServerArgument)) return true;
  auto* stack = builder->mutable_stack();
  auto replaced = [](const grpc_channel_filter* filter) {
    for (const char* name :
         {"http-server", "compression", "message_size", "server_call_tracer"}) {
      if (strcmp(filter->name, name) == 0) return true;
    }
    return false;
  };
  stack->erase(std::remove_if(stack->begin(), stack->end(), replaced),
               stack->end());
  stack->insert(stack->begin(), &kHttpFilter);
  return true;
}

}  // namespace

void ReplaceFilters(grpc_core::CoreConfiguration::Builder* builder) {
  // With this priority the stage comes after all others.
  builder->channel_init()->RegisterStage(GRPC_SERVER_CHANNEL, INT_MAX,
                                         ReplaceInStack);
}

}  // namespace touchdown

touchdown_fault touchdown_call_fault(grpc_call* call) {
  return touchdown::PartOf(call)->fault;
}

void touchdown_call_takes_a_stream(grpc_call* call) {
  touchdown::PartOf(call)->messages &= ~touchdown::kHasOneRequest;
}
