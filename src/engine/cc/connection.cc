// Compiled without NDEBUG, as shim.cc is, and careful in the same way.

#include "connection.h"

#include <sys/socket.h>

#include <utility>

#include <grpc/support/log.h>

#include "closure.h"
#include "src/core/lib/gprpp/debug_location.h"
#include "src/core/lib/iomgr/exec_ctx.h"
#include "tls.h"

namespace touchdown {

using grpc_core::ExecCtx;

Connection::Connection(grpc_endpoint* inner, bool is_tls, int fd,
                       std::shared_ptr<ServerConnections> server,
                       const touchdown_connection_events& events, void* arg)
    : inner_(inner),
      is_tls_(is_tls),
      fd_(fd),
      server_(std::move(server)),
      events_(events),
      arg_(arg) {
  base_.vtable = &kVtable;
  grpc_slice_buffer_init(&incoming_);
  InitClosure(&on_read_, OnRead, this);
  InitClosure(&on_ready_, OnReady, this);
  InitClosure(&on_discard_, OnDiscard, this);
  InitClosure(&on_timer_, OnTimer, this);
  InitClosure(&on_written_, OnWritten, this);
  int domain = AF_UNIX;
  socklen_t size = sizeof(domain);
  getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size);
  is_tcp_ = domain != AF_UNIX;
}

void Connection::Unreference() {
  if (references_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  grpc_slice_buffer_destroy(&incoming_);
  delete this;
}

void Connection::Read(grpc_endpoint* endpoint, grpc_slice_buffer* slices,
                 grpc_closure* callback, bool urgent, int min_progress) {
  Connection* self = From(endpoint);
  grpc_error_handle error;
  {
    std::lock_guard<std::mutex> lock(self->mutex_);
    if (self->shut_down_) {
      error = absl::UnavailableError("connection is shut down");
    } else if (!self->released_.empty()) {
      Put(&self->released_, slices);
    } else {
      self->slices_ = slices;
      self->callback_ = callback;
      callback = nullptr;
      // The read under which an ack was delivered may still be under way.
      if (self->reading_) return;
      self->reading_ = true;
    }
  }
  if (callback != nullptr) {
    ExecCtx::Run(DEBUG_LOCATION, callback, error);
    return;
  }
  grpc_endpoint_read(self->inner_, &self->incoming_, &self->on_read_, urgent,
                     min_progress);
}

void Connection::OnRead(void* arg, grpc_error_handle error) {
  Connection* self = static_cast<Connection*>(arg);
  grpc_closure* callback = nullptr;
  bool read_on = false;
  bool finished = false;
  std::string cut;
  {
    std::lock_guard<std::mutex> lock(self->mutex_);
    self->reading_ = false;
    self->NoteLost(error);
    self->ended_ = self->ended_ || self->HasEnded(error);
    self->received_ += self->incoming_.length;
    if (self->shut_down_) {
      finished = self->ended_ && self->destroyed_;
      read_on = !self->ended_;
    } else {
      const bool nothing_left = self->Follow(self->IsDraining()) && error.ok();
      if (self->callback_ == nullptr || nothing_left) {
        // Only acks, which wait; or C-core was given one and is at work on it.
        read_on = nothing_left;
        if (!nothing_left) self->KeepForLater();
      } else {
        callback = self->callback_;
        self->callback_ = nullptr;
        grpc_slice_buffer_swap(self->slices_, &self->incoming_);
      }
    }
    self->reading_ = read_on;
    if (self->is_to_be_cut_) cut = self->Cut();
  }
  if (!cut.empty()) {
    // Without the lock, since the program's logger may block.
    gpr_log(GPR_ERROR,
            "closing a connection on which too many calls were reset: %s",
            cut.c_str());
  }
  if (callback != nullptr) {
    ExecCtx::Run(DEBUG_LOCATION, callback, error);
  } else if (read_on) {
    // Not at once: if more has come, the read ends at once as well, and so on, and a
    // peer that sends without a pause would use up the stack.
    ExecCtx::Run(DEBUG_LOCATION, &self->on_discard_, absl::OkStatus());
  } else if (finished) {
    self->Finish();
  }
}

void Connection::KeepForLater() {
  for (size_t i = 0; i < incoming_.count; ++i) {
    released_.append(
        reinterpret_cast<const char*>(GRPC_SLICE_START_PTR(incoming_.slices[i])),
        GRPC_SLICE_LENGTH(incoming_.slices[i]));
  }
  grpc_slice_buffer_reset_and_unref(&incoming_);
}

std::string Connection::Cut() {
  is_to_be_cut_ = false;
  // C-core sees the connection's end when it reads next.
  shutdown(fd_, SHUT_RDWR);
  return std::string(grpc_endpoint_get_peer(inner_));
}

void Connection::OnDiscard(void* arg, grpc_error_handle /*error*/) {
  static_cast<Connection*>(arg)->Discard();
}

void Connection::Discard() {
  grpc_slice_buffer_reset_and_unref(&incoming_);
  grpc_endpoint_read(inner_, &incoming_, &on_read_, /*urgent=*/false,
                     /*min_progress_size=*/1);
}

void Connection::Write(grpc_endpoint* endpoint, grpc_slice_buffer* slices,
                  grpc_closure* callback, void* arg, int max_frame_size) {
  Connection* self = From(endpoint);
  grpc_closure* acknowledged;
  {
    std::lock_guard<std::mutex> lock(self->mutex_);
    // C-core begins a write when the one before has ended.
    self->NoteWritten();
    acknowledged = self->FollowWritten(slices);
    if (self->IsDraining()) {
      self->write_callback_ = callback;
      callback = &self->on_written_;
    }
  }
  if (acknowledged != nullptr) {
    ExecCtx::Run(DEBUG_LOCATION, acknowledged, absl::OkStatus());
  }
  const EndpointWrite write = {self->inner_, slices, callback, arg, max_frame_size};
  if (self->server_->corking.Keep(write)) return;
  grpc_endpoint_write(self->inner_, slices, callback, arg, max_frame_size);
}

bool Connection::ShutDown(grpc_closure** callback, bool* read_on) {
  shut_down_ = true;
  *callback = std::exchange(callback_, nullptr);
  if (!ended_ && is_tls_) touchdown::SayGoodbye(inner_, fd_);
  const bool linger = !ended_ && shutdown(fd_, SHUT_WR) == 0;
  if (linger && !reading_) reading_ = *read_on = true;
  return linger;
}

void Connection::Shutdown(grpc_endpoint* endpoint, grpc_error_handle why) {
  Connection* self = From(endpoint);
  grpc_closure* callback;
  bool linger;
  bool read_on = false;
  {
    std::lock_guard<std::mutex> lock(self->mutex_);
    if (self->shut_down_) return;
    linger = self->ShutDown(&callback, &read_on);
  }
  if (callback != nullptr) ExecCtx::Run(DEBUG_LOCATION, callback, why);
  if (!linger) {
    grpc_endpoint_shutdown(self->inner_, why);
    return;
  }
  self->events_.lingering(self->arg_);
  if (read_on) self->Discard();
}

void Connection::Destroy(grpc_endpoint* endpoint) {
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

void Connection::Finish() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    finished_ = true;
    server_->open_calls.fetch_sub(calls_.open(), std::memory_order_relaxed);
  }
  events_.closed(arg_, lost_);
  grpc_endpoint_destroy(inner_);
  Unreference();
}

void Connection::OnReady(void* arg, grpc_error_handle error) {
  Connection* self = static_cast<Connection*>(arg);
  {
    std::lock_guard<std::mutex> lock(self->mutex_);
    // After Destroy, `arg_` may have been passed to `closed`.
    if (error.ok() && !self->destroyed_) self->events_.ready(self->arg_);
  }
  self->Unreference();
}

void Connection::AddToPollset(grpc_endpoint* endpoint, grpc_pollset* pollset) {
  grpc_endpoint_add_to_pollset(From(endpoint)->inner_, pollset);
}

void Connection::AddToPollsetSet(grpc_endpoint* endpoint, grpc_pollset_set* set) {
  grpc_endpoint_add_to_pollset_set(From(endpoint)->inner_, set);
}

void Connection::DeleteFromPollsetSet(grpc_endpoint* endpoint,
                                 grpc_pollset_set* set) {
  grpc_endpoint_delete_from_pollset_set(From(endpoint)->inner_, set);
}

absl::string_view Connection::Peer(grpc_endpoint* endpoint) {
  return grpc_endpoint_get_peer(From(endpoint)->inner_);
}

absl::string_view Connection::LocalAddress(grpc_endpoint* endpoint) {
  return grpc_endpoint_get_local_address(From(endpoint)->inner_);
}

int Connection::Fd(grpc_endpoint* endpoint) { return From(endpoint)->fd_; }

bool Connection::CanTrackError(grpc_endpoint* endpoint) {
  return grpc_endpoint_can_track_err(From(endpoint)->inner_);
}

const grpc_endpoint_vtable Connection::kVtable = {
    Connection::Read,         Connection::Write,
    Connection::AddToPollset, Connection::AddToPollsetSet,
    Connection::DeleteFromPollsetSet, Connection::Shutdown,
    Connection::Destroy,      Connection::Peer,
    Connection::LocalAddress, Connection::Fd,
    Connection::CanTrackError};

}  // namespace touchdown
