// Compiled without NDEBUG, as shim.cc is, and careful in the same way.

#include "filters.h"

#include <limits.h>
#include <string.h>

#include <algorithm>
#include <utility>

#include "closure.h"
#include "src/core/lib/channel/channel_args.h"
#include "src/core/lib/channel/channel_stack.h"
#include "src/core/lib/channel/channel_stack_builder.h"
#include "src/core/lib/iomgr/error.h"
#include "src/core/lib/surface/channel_stack_type.h"
#include "src/core/lib/transport/http2_errors.h"
#include "src/core/lib/transport/metadata_batch.h"
#include "src/core/lib/transport/transport.h"

namespace touchdown {
namespace {

using grpc_core::ChannelStackBuilder;

// What HTTP asks of a call, and no more. C-core has four filters for a server's
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
};

void OnRequest(void* arg, grpc_error_handle error) {
  HttpCall* call = static_cast<HttpCall*>(arg);
  grpc_core::Slice* path =
      call->request->get_pointer(grpc_core::HttpPathMetadata());
  // A GET may come from a link that somebody clicked on. It gets to a method
  // that does not exist, so that there is an answer.
  if (error.ok() && path != nullptr &&
      call->request->get(grpc_core::HttpMethodMetadata()) !=
          grpc_core::HttpMethodMetadata::kPost) {
    grpc_slice_unref(path->TakeCSlice());
    *path = grpc_core::Slice(
        grpc_slice_from_static_string("another HTTP method than POST"));
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

void StartBatch(grpc_call_element* element,
                grpc_transport_stream_op_batch* batch) {
  if (batch->recv_initial_metadata) {
    HttpCall* call = static_cast<HttpCall*>(element->call_data);
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
  if (batch->send_initial_metadata) {
    grpc_metadata_batch* response =
        batch->payload->send_initial_metadata.send_initial_metadata;
    response->Set(grpc_core::HttpStatusMetadata(), 200);
    response->Set(grpc_core::ContentTypeMetadata(),
                  grpc_core::ContentTypeMetadata::kApplicationGrpc);
  }
  grpc_call_next_op(element, batch);
}

const grpc_channel_filter kHttpFilter = {
    StartBatch,
    nullptr,  // no promises
    grpc_channel_next_op,
    sizeof(HttpCall),
    [](grpc_call_element*, const grpc_call_element_args*) {
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
