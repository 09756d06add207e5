// C-core compiled for debugging lays out some of its types otherwise than
// C-core compiled with NDEBUG. This file is always compiled without NDEBUG and
// uses only what is safe with both: a `grpc_closure` has its debugging fields
// at its end, so the larger one serves; nothing here touches a `RefCounted`
// but through functions that live in the library. `ChannelArgs` is such a case.

#include "shim.h"

#include <sys/socket.h>

#include <atomic>
#include <mutex>
#include <new>
#include <type_traits>

#include "absl/strings/string_view.h"
#include "src/core/ext/transport/chttp2/transport/chttp2_transport.h"
#include "src/core/lib/channel/channel_args.h"
#include "src/core/lib/channel/channel_args_preconditioning.h"
#include "src/core/lib/channel/channelz.h"
#include "src/core/lib/config/core_configuration.h"
#include "src/core/lib/event_engine/channel_args_endpoint_config.h"
#include "src/core/lib/gprpp/debug_location.h"
#include "src/core/lib/gprpp/ref_counted_ptr.h"
#include "src/core/lib/iomgr/closure.h"
#include "src/core/lib/iomgr/endpoint.h"
#include "src/core/lib/iomgr/error.h"
#include "src/core/lib/iomgr/ev_posix.h"
#include "src/core/lib/iomgr/exec_ctx.h"
#include "src/core/lib/iomgr/tcp_client_posix.h"
#include "src/core/lib/surface/completion_queue.h"
#include "src/core/lib/surface/server.h"
#include "src/core/lib/transport/transport.h"

#ifdef NDEBUG
#error "shim.cc needs the larger layout of grpc_closure: compile it without NDEBUG"
#endif

struct touchdown_arguments {
  grpc_core::ChannelArgs value;
};

namespace {

using grpc_core::ExecCtx;

// A TCP endpoint that closes gently. C-core's own shuts the socket down in
// both directions and closes it: a byte that arrives afterwards (a window
// update, a ping's ack) makes the kernel answer with RST, and what it had not
// yet delivered of the last replies is gone. This one sends FIN, then reads
// and drops until the peer has closed as well.
class Connection {
 public:
  Connection(grpc_endpoint* inner, int fd,
             const touchdown_connection_events& events, void* arg)
      : inner_(inner), fd_(fd), events_(events), arg_(arg) {
    base_.vtable = &kVtable;
    grpc_slice_buffer_init(&incoming_);
    Init(&on_read_, OnRead);
    Init(&on_ready_, OnReady);
  }

  grpc_endpoint* endpoint() { return &base_; }

  // The closure that C-core runs once, when the peer's settings are there or
  // the connection ended without them. It keeps the connection alive.
  grpc_closure* TakeReadyClosure() {
    references_.fetch_add(1, std::memory_order_relaxed);
    return &on_ready_;
  }

 private:
  // `GRPC_CLOSURE_INIT` is not used: it is another function with NDEBUG.
  void Init(grpc_closure* closure, grpc_iomgr_cb_func callback) {
    closure->cb = callback;
    closure->cb_arg = this;
    closure->error_data.error = 0;
    closure->scheduled = false;
    closure->run = false;
    closure->file_created = closure->file_initiated = nullptr;
    closure->line_created = closure->line_initiated = 0;
  }

  static Connection* From(grpc_endpoint* endpoint) {
    static_assert(std::is_standard_layout<grpc_endpoint>::value, "");
    return reinterpret_cast<Connection*>(endpoint);
  }

  static void Read(grpc_endpoint* endpoint, grpc_slice_buffer* slices,
                   grpc_closure* callback, bool urgent, int min_progress) {
    Connection* self = From(endpoint);
    {
      std::lock_guard<std::mutex> lock(self->mutex_);
      if (!self->shut_down_) {
        self->slices_ = slices;
        self->callback_ = callback;
        self->reading_ = true;
        callback = nullptr;
      }
    }
    if (callback != nullptr) {
      ExecCtx::Run(DEBUG_LOCATION, callback,
                   absl::UnavailableError("connection is shut down"));
      return;
    }
    grpc_endpoint_read(self->inner_, &self->incoming_, &self->on_read_, urgent,
                       min_progress);
  }

  static void OnRead(void* arg, grpc_error_handle error) {
    Connection* self = static_cast<Connection*>(arg);
    grpc_closure* callback;
    bool read_on = false;
    bool finished = false;
    {
      std::lock_guard<std::mutex> lock(self->mutex_);
      self->reading_ = false;
      self->ended_ = self->ended_ || !error.ok();
      callback = self->callback_;
      self->callback_ = nullptr;
      if (callback != nullptr) {
        grpc_slice_buffer_swap(self->slices_, &self->incoming_);
      } else if (self->ended_) {
        finished = self->destroyed_;
      } else {
        self->reading_ = read_on = true;
      }
    }
    if (callback != nullptr) {
      ExecCtx::Run(DEBUG_LOCATION, callback, error);
    } else if (read_on) {
      self->Discard();
    } else if (finished) {
      self->Finish();
    }
  }

  void Discard() {
    grpc_slice_buffer_reset_and_unref(&incoming_);
    grpc_endpoint_read(inner_, &incoming_, &on_read_, /*urgent=*/false,
                       /*min_progress_size=*/1);
  }

  static void Shutdown(grpc_endpoint* endpoint, grpc_error_handle why) {
    Connection* self = From(endpoint);
    grpc_closure* callback;
    bool linger;
    bool read_on = false;
    {
      std::lock_guard<std::mutex> lock(self->mutex_);
      if (self->shut_down_) return;
      self->shut_down_ = true;
      callback = self->callback_;
      self->callback_ = nullptr;
      linger = !self->ended_ && shutdown(self->fd_, SHUT_WR) == 0;
      if (linger && !self->reading_) self->reading_ = read_on = true;
    }
    if (callback != nullptr) ExecCtx::Run(DEBUG_LOCATION, callback, why);
    if (!linger) {
      grpc_endpoint_shutdown(self->inner_, why);
      return;
    }
    self->events_.lingering(self->arg_);
    if (read_on) self->Discard();
  }

  static void Destroy(grpc_endpoint* endpoint) {
    Connection* self = From(endpoint);
    bool shut_down;
    bool finished;
    {
      std::lock_guard<std::mutex> lock(self->mutex_);
      shut_down = self->shut_down_;
      self->shut_down_ = true;
      self->destroyed_ = true;
      finished = !self->reading_;
    }
    if (!shut_down) {
      grpc_endpoint_shutdown(self->inner_,
                             absl::UnavailableError("connection destroyed"));
    }
    if (finished) self->Finish();
  }

  // C-core has let go and no read is under way.
  void Finish() {
    events_.closed(arg_);
    grpc_endpoint_destroy(inner_);
    Unreference();
  }

  static void OnReady(void* arg, grpc_error_handle error) {
    Connection* self = static_cast<Connection*>(arg);
    {
      std::lock_guard<std::mutex> lock(self->mutex_);
      // After Destroy, `arg_` may have been passed to `closed`.
      if (error.ok() && !self->destroyed_) self->events_.ready(self->arg_);
    }
    self->Unreference();
  }

  void Unreference() {
    if (references_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    grpc_slice_buffer_destroy(&incoming_);
    delete this;
  }

  static void AddToPollset(grpc_endpoint* endpoint, grpc_pollset* pollset) {
    grpc_endpoint_add_to_pollset(From(endpoint)->inner_, pollset);
  }
  static void AddToPollsetSet(grpc_endpoint* endpoint, grpc_pollset_set* set) {
    grpc_endpoint_add_to_pollset_set(From(endpoint)->inner_, set);
  }
  static void DeleteFromPollsetSet(grpc_endpoint* endpoint,
                                   grpc_pollset_set* set) {
    grpc_endpoint_delete_from_pollset_set(From(endpoint)->inner_, set);
  }
  static void Write(grpc_endpoint* endpoint, grpc_slice_buffer* slices,
                    grpc_closure* callback, void* arg, int max_frame_size) {
    grpc_endpoint_write(From(endpoint)->inner_, slices, callback, arg,
                        max_frame_size);
  }
  static absl::string_view Peer(grpc_endpoint* endpoint) {
    return grpc_endpoint_get_peer(From(endpoint)->inner_);
  }
  static absl::string_view LocalAddress(grpc_endpoint* endpoint) {
    return grpc_endpoint_get_local_address(From(endpoint)->inner_);
  }
  static int Fd(grpc_endpoint* endpoint) { return From(endpoint)->fd_; }
  static bool CanTrackError(grpc_endpoint* endpoint) {
    return grpc_endpoint_can_track_err(From(endpoint)->inner_);
  }

  static const grpc_endpoint_vtable kVtable;

  grpc_endpoint base_;  // first, so that `From` holds
  grpc_endpoint* const inner_;
  const int fd_;
  const touchdown_connection_events events_;
  void* const arg_;
  // One for C-core and the read that outlives it, one for `on_ready_`.
  std::atomic<int> references_{1};
  grpc_closure on_read_;
  grpc_closure on_ready_;

  // Guards all below but `incoming_`, which belongs to the read under way.
  // `reading_` is true from before a read of `inner_` until its callback.
  std::mutex mutex_;
  grpc_slice_buffer incoming_;
  grpc_slice_buffer* slices_ = nullptr;
  grpc_closure* callback_ = nullptr;  // C-core's, while it waits for a read
  bool reading_ = false;
  bool ended_ = false;  // the peer closed, or the socket failed
  bool shut_down_ = false;
  bool destroyed_ = false;
};

const grpc_endpoint_vtable Connection::kVtable = {
    Connection::Read,         Connection::Write,
    Connection::AddToPollset, Connection::AddToPollsetSet,
    Connection::DeleteFromPollsetSet, Connection::Shutdown,
    Connection::Destroy,      Connection::Peer,
    Connection::LocalAddress, Connection::Fd,
    Connection::CanTrackError};

}  // namespace

touchdown_arguments* touchdown_arguments_create(const grpc_channel_args* args) {
  grpc_core::ExecCtx exec_ctx;
  return new touchdown_arguments{grpc_core::CoreConfiguration::Get()
                                     .channel_args_preconditioning()
                                     .PreconditionChannelArgs(args)};
}

void touchdown_arguments_destroy(touchdown_arguments* arguments) {
  grpc_core::ExecCtx exec_ctx;
  delete arguments;
}

int touchdown_server_add_connection(grpc_server* server,
                                    grpc_completion_queue* queue,
                                    const touchdown_arguments* arguments,
                                    int fd, const char* peer,
                                    const touchdown_connection_events* events,
                                    void* arg) {
  grpc_core::ApplicationCallbackExecCtx callback_exec_ctx;
  grpc_core::ExecCtx exec_ctx;
  const grpc_core::ChannelArgs& args = arguments->value;
  grpc_endpoint* inner = grpc_tcp_create_from_fd(
      grpc_fd_create(fd, peer, /*track_err=*/true),
      grpc_event_engine::experimental::ChannelArgsEndpointConfig(args), peer);
  Connection* connection = new Connection(inner, fd, *events, arg);
  grpc_transport* transport =
      grpc_create_chttp2_transport(args, connection->endpoint(), false);
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

void touchdown_server_send_goaways(grpc_server* server) {
  grpc_core::ApplicationCallbackExecCtx callback_exec_ctx;
  grpc_core::ExecCtx exec_ctx;
  grpc_core::Server::FromC(server)->SendGoaways();
}
