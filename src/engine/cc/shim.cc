// What shim.h declares, but for the threads: each function finds C-core's part, or ours, that does it.
//
// C-core compiled for debugging lays out some of its types otherwise than
// C-core compiled with NDEBUG. This file is always compiled without NDEBUG and
// uses only what is safe with both: a `grpc_closure` has its debugging fields
// at its end, so the larger one serves; nothing here touches a `RefCounted`
// but through functions that live in the library. `ChannelArgs` is such a case.

#include "shim.h"

#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#include "closure.h"
#include "connection.h"
#include "event_engine.h"
#include "filters.h"
#include "headers.h"
#include "messages.h"
#include "src/core/ext/transport/chttp2/transport/chttp2_transport.h"
#include "src/core/lib/channel/channel_args.h"
#include "src/core/lib/channel/channel_args_preconditioning.h"
#include "src/core/lib/channel/channelz.h"
#include "src/core/lib/config/core_configuration.h"
#include "src/core/lib/event_engine/channel_args_endpoint_config.h"
#include "src/core/lib/gprpp/ref_counted_ptr.h"
#include "src/core/lib/iomgr/endpoint.h"
#include "src/core/lib/iomgr/error.h"
#include "src/core/lib/iomgr/ev_posix.h"
#include "src/core/lib/iomgr/exec_ctx.h"
#include "src/core/lib/iomgr/tcp_client_posix.h"
#include "src/core/lib/surface/call.h"
#include "src/core/lib/surface/completion_queue.h"
#include "src/core/lib/surface/server.h"
#include "src/core/lib/transport/transport.h"
#include "threads.h"
#include "tls.h"
#ifndef TOUCHDOWN_CLIENT
#include "without_client.h"
#endif

struct touchdown_arguments {
  grpc_core::ChannelArgs value;
  std::shared_ptr<touchdown::ServerConnections> connections;
};

namespace {

using grpc_event_engine::experimental::EventEngine;
using touchdown::Connection;

// C-core fixes its configuration when it is first used, so this comes earlier,
// while the program is loaded.
const bool kRegistered = [] {
#ifndef TOUCHDOWN_CLIENT
  touchdown::LeaveClientOut();
#endif
  touchdown::ReadHeadersLeniently();
  touchdown::ReadFaultyHeaders();
  touchdown::ReadMessagesWithCare();
  grpc_core::CoreConfiguration::RegisterBuilder(touchdown::ReplaceFilters);
  return true;
}();

}  // namespace

touchdown_arguments* touchdown_arguments_create(const grpc_channel_args* args) {
  grpc_core::ExecCtx exec_ctx;
  grpc_core::ChannelArgs value = grpc_core::CoreConfiguration::Get()
                                     .channel_args_preconditioning()
                                     .PreconditionChannelArgs(args);
  std::shared_ptr<EventEngine> engine = touchdown::ServerEventEngine();
  if (engine != nullptr) value = value.SetObject(std::move(engine));
  return new touchdown_arguments{
      std::move(value), std::make_shared<touchdown::ServerConnections>()};
}

void touchdown_arguments_destroy(touchdown_arguments* arguments) {
  grpc_core::ExecCtx exec_ctx;
  delete arguments;
}

int touchdown_server_add_connection(grpc_server* server,
                                    grpc_completion_queue* queue,
                                    const touchdown_arguments* arguments,
                                    const touchdown_newcomer* newcomer) {
  grpc_core::ApplicationCallbackExecCtx callback_exec_ctx;
  grpc_core::ExecCtx exec_ctx;
  const grpc_core::ChannelArgs& args = arguments->value;
  grpc_endpoint* inner = grpc_tcp_create_from_fd(
      grpc_fd_create(newcomer->fd, newcomer->peer, /*track_err=*/true),
      grpc_event_engine::experimental::ChannelArgsEndpointConfig(args),
      newcomer->peer);
  if (newcomer->session != nullptr) {
    inner = touchdown::NewTlsEndpoint(inner, *newcomer->tls, newcomer->session);
  }
  Connection* connection = new Connection(inner, *newcomer, arguments->connections);
  newcomer->events->opened(newcomer->arg,
                           reinterpret_cast<touchdown_connection*>(connection));
  grpc_transport* transport =
      grpc_create_chttp2_transport(args, connection->endpoint(), false);
  connection->SetTransport(transport);
  // A null pointer whose destructor, which would look at a reference count,
  // is never run.
  using SocketNode = grpc_core::RefCountedPtr<grpc_core::channelz::SocketNode>;
  std::aligned_storage<sizeof(SocketNode), alignof(SocketNode)>::type no_node;
  new (&no_node) SocketNode();
  grpc_error_handle error = grpc_core::Server::FromC(server)->SetupTransport(
      transport, nullptr, args, reinterpret_cast<const SocketNode&>(no_node));
  if (!error.ok()) {
    grpc_transport_destroy(transport);
    return 0;
  }
  grpc_endpoint_add_to_pollset(inner, grpc_cq_pollset(queue));
  grpc_chttp2_transport_start_reading(
      transport, nullptr, connection->TakeReadyClosure(), nullptr);
  return 1;
}

namespace {
Connection* From(touchdown_connection* connection) {
  return reinterpret_cast<Connection*>(connection);
}
}  // namespace

void touchdown_connection_reference(touchdown_connection* connection) {
  From(connection)->Reference();
}

void touchdown_connection_release(touchdown_connection* connection) {
  grpc_core::ApplicationCallbackExecCtx callback_exec_ctx;
  grpc_core::ExecCtx exec_ctx;
  From(connection)->Unreference();
}

void touchdown_connection_look(touchdown_connection* connection,
                               touchdown_connection_view* view) {
  From(connection)->Look(view);
}

touchdown_finish_result touchdown_connection_finish(touchdown_connection* connection) {
  grpc_core::ApplicationCallbackExecCtx callback_exec_ctx;
  grpc_core::ExecCtx exec_ctx;
  return From(connection)->FinishCalls();
}

int touchdown_connection_send_away(touchdown_connection* connection) {
  grpc_core::ApplicationCallbackExecCtx callback_exec_ctx;
  grpc_core::ExecCtx exec_ctx;
  return From(connection)->SendAway() ? 1 : 0;
}

void touchdown_connection_blame(touchdown_connection* connection) {
  From(connection)->Blame();
}

size_t touchdown_connection_pass_span(touchdown_connection* connection,
                                      uint32_t least, int counts, uint8_t spans) {
  return From(connection)->PassSpan(least, counts != 0, spans);
}

int touchdown_connection_rest(touchdown_connection* connection, uint32_t calls) {
  return From(connection)->Rest(calls) ? 1 : 0;
}

void touchdown_turns_begin(const touchdown_arguments* arguments,
                           grpc_completion_queue* queue, void* tag) {
  arguments->connections->turns.Begin(queue, tag);
}

void touchdown_turns_end(const touchdown_arguments* arguments) {
  arguments->connections->turns.End();
}

void touchdown_turns_take(const touchdown_arguments* arguments) {
  arguments->connections->turns.Take();
}

void touchdown_arguments_limit_calls(const touchdown_arguments* arguments, size_t calls) {
  arguments->connections->most_calls.store(calls, std::memory_order_relaxed);
}

size_t touchdown_open_calls(const touchdown_arguments* arguments) {
  return arguments->connections->open_calls.load(std::memory_order_relaxed);
}

void touchdown_server_send_goaways(grpc_server* server,
                                   const touchdown_arguments* arguments) {
  grpc_core::ApplicationCallbackExecCtx callback_exec_ctx;
  grpc_core::ExecCtx exec_ctx;
  // Before the first GOAWAY, so that no ack gets through.
  arguments->connections->draining.store(true, std::memory_order_release);
  touchdown::WaitForAcknowledgements();
  grpc_core::Server::FromC(server)->SendGoaways();
}

struct touchdown_completion {
  grpc_closure closure;
  void (*done)(void* arg, int succeeded);
  void* arg;
};

touchdown_completion* touchdown_completion_create() {
  touchdown_completion* completion = new touchdown_completion();
  touchdown::InitClosure(
      &completion->closure,
      [](void* arg, grpc_error_handle error) {
        touchdown_completion* completion =
            static_cast<touchdown_completion*>(arg);
        // May destroy the completion.
        completion->done(completion->arg, error.ok());
      },
      completion);
  return completion;
}

void touchdown_completion_destroy(touchdown_completion* completion) {
  delete completion;
}

grpc_call_error touchdown_call_start_batch(grpc_call* call, const grpc_op* ops,
                                           size_t count,
                                           touchdown_completion* completion,
                                           void (*done)(void* arg, int succeeded),
                                           void* arg) {
  grpc_core::ApplicationCallbackExecCtx callback_exec_ctx;
  grpc_core::ExecCtx exec_ctx;
  completion->done = done;
  completion->arg = arg;
  return grpc_call_start_batch_and_execute(call, ops, count,
                                           &completion->closure);
}

void touchdown_cork(const touchdown_arguments* arguments) {
  arguments->connections->corking.Begin();
}

void touchdown_uncork(const touchdown_arguments* arguments) {
  arguments->connections->corking.End();
}

void touchdown_uncork_old(const touchdown_arguments* arguments) {
  arguments->connections->corking.EndOld();
}

void touchdown_queue_poll(grpc_completion_queue* queue, int looks) {
  grpc_core::ApplicationCallbackExecCtx callback_exec_ctx;
  grpc_core::ExecCtx exec_ctx;
  grpc_pollset* pollset = grpc_cq_pollset(queue);
  // It is what a pollset begins with, in each of C-core's pollers (ev_epoll1_linux.cc, ev_poll_posix.cc).
  gpr_mu* mu = reinterpret_cast<gpr_mu*>(pollset);
  gpr_mu_lock(mu);
  // The first may be for a kick that was meant for who polls next, and look at nothing. What cannot be polled now is found by who
  // waits.
  for (int i = 0; i < looks; ++i) {
    grpc_pollset_work(pollset, nullptr, grpc_core::Timestamp::ProcessEpoch()).IgnoreError();
  }
  gpr_mu_unlock(mu);
}

int touchdown_queue_post(grpc_completion_queue* queue, void* tag) {
  grpc_core::ApplicationCallbackExecCtx callback_exec_ctx;
  grpc_core::ExecCtx exec_ctx;
  if (!grpc_cq_begin_op(queue, tag)) return 0;
  grpc_cq_end_op(
      queue, tag, absl::OkStatus(),
      [](void*, grpc_cq_completion* completion) { delete completion; }, nullptr,
      new grpc_cq_completion());
  return 1;
}
