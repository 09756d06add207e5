// Compiled without NDEBUG, as shim.cc is, and careful in the same way.

#include "connection.h"

#include <sys/socket.h>

#include <utility>

#include "closure.h"
#include "src/core/lib/gprpp/debug_location.h"
#include "src/core/lib/iomgr/exec_ctx.h"
#include "tls.h"

namespace touchdown {

using grpc_core::Duration;
using grpc_core::ExecCtx;

namespace {

// How much may come behind the end of a connection from a peer that is to blame for it: what may be on the way when
// GOAWAY arrives, which is a window of 64 KiB for each of some calls.
constexpr size_t kMostDropped = 1 << 20;

// As what a read counts that TLS has dropped: as much as is read at least of who sends without a pause.
constexpr size_t kDroppedByTls = 8 << 10;

}  // namespace

Connection::Connection(grpc_endpoint* inner, const touchdown_newcomer& newcomer,
                       std::shared_ptr<ServerConnections> server)
    : inner_(inner),
      is_tls_(newcomer.session != nullptr),
      fd_(newcomer.fd),
      server_(std::move(server)),
      events_(*newcomer.events),
      arg_(newcomer.arg),
      acknowledge_time_(Duration::Milliseconds(newcomer.acknowledge_ms)),
      most_calls_(newcomer.most_calls),
      guard_(*newcomer.guard_functions, newcomer.guard) {
  base_.vtable = &kVtable;
  grpc_slice_buffer_init(&incoming_);
  grpc_slice_buffer_init(&waiting_);
  InitClosure(&on_read_, OnRead, this);
  InitClosure(&on_ready_, OnReady, this);
  InitClosure(&on_discard_, OnDiscard, this);
  InitClosure(&on_timer_, OnTimer, this);
  InitClosure(&on_written_, OnWritten, this);
  InitClosure(&on_alarm_, OnAlarm, this);
  InitClosure(&on_waiting_, OnWaiting, this);
  int domain = AF_UNIX;
  socklen_t size = sizeof(domain);
  getsockopt(fd_, SOL_SOCKET, SO_DOMAIN, &domain, &size);
  is_tcp_ = domain != AF_UNIX;
}

void Connection::Unreference() {
  if (references_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  grpc_slice_buffer_destroy(&incoming_);
  grpc_slice_buffer_destroy(&waiting_);
  delete this;
}

void Connection::Read(grpc_endpoint* endpoint, grpc_slice_buffer* slices,
                 grpc_closure* callback, bool urgent, int min_progress) {
  Connection* self = From(endpoint);
  grpc_error_handle error;
  touchdown_verdict noted = TOUCHDOWN_PASS;
  bool read = false;
  bool take_waiting = false;
  bool ends = false;
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
      noted = std::exchange(self->noted_, TOUCHDOWN_PASS);
      self->Hold(noted);
      if (noted == TOUCHDOWN_CUT && !self->reading_ && self->EndsInTurn()) {
        self->end_ = End::kCut;
        // The peer's time to take GOAWAY begins when that is sent.
        self->gone_by_ = grpc_core::Timestamp::InfFuture();
        noted = TOUCHDOWN_PASS;
      }
      ends = self->end_ != End::kNone && !self->reading_;
      if (ends) self->reading_ = true;
      // The read under which an ack was delivered may still be under way.
      if (!self->reading_ && !self->is_held_ && !self->cut_) {
        self->reading_ = true;
        take_waiting = self->waiting_.length > 0;
        read = !take_waiting;
      }
    }
  }
  if (callback != nullptr) {
    ExecCtx::Run(DEBUG_LOCATION, callback, error);
    return;
  }
  if (noted != TOUCHDOWN_PASS) self->Act(noted);
  if (ends) self->EndInTurn();
  if (take_waiting) self->ComeInTurn();
  if (read) self->ReadOn(urgent, min_progress);
}

void Connection::ReadOn(bool urgent, int min_progress) {
  if (is_tls_) {
    // Takes turns by itself.
    grpc_endpoint_read(inner_, &incoming_, &on_read_, urgent, min_progress);
  } else {
    turn_.Read(inner_, &incoming_, &on_read_, urgent, min_progress);
  }
}

void Connection::OnRead(void* arg, grpc_error_handle error) {
  Connection* self = static_cast<Connection*>(arg);
  if (!self->is_tls_) self->turn_.Came(self->incoming_.length);
  self->Came(error, /*is_new=*/true);
}

void Connection::Came(grpc_error_handle error, bool is_new) {
  grpc_closure* callback = nullptr;
  bool read_on = false;
  bool finished = false;
  bool ends = false;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    reading_ = false;
    if (is_new) {
      NoteLost(error);
      ended_ = ended_ || HasEnded(error);
      received_ += incoming_.length;
    }
    if (shut_down_) {
      finished = ended_ && destroyed_;
      if (is_blamed_ && !cut_) {
        // Who has been told what is wrong, and goes on like this, is not waited for.
        dropped_ += is_tls_ ? kDroppedByTls : incoming_.length;
        if (dropped_ > kMostDropped) Hold(TOUCHDOWN_CUT);
      }
      parked_ = !ended_ && cut_ && !drops_;
      read_on = !ended_ && !parked_;
    } else if (cut_ && error.ok()) {
      grpc_slice_buffer_reset_and_unref(&incoming_);
    } else if (is_held_ && error.ok()) {
      LetWait(0);
    } else {
      bool nothing_left = false;
      if (HasNoted()) {
        LetWait(0);
      } else {
        nothing_left = Follow(IsDraining()) && error.ok() && !HasNoted() &&
                       waiting_.length == 0;
      }
      if (callback_ == nullptr || nothing_left) {
        // Only acks, which wait; or C-core was given one and is at work on it.
        read_on = nothing_left;
        if (!nothing_left) KeepForLater();
      } else if (!error.ok() && EndsInTurn()) {
        end_ = End::kRead;
        end_error_ = error;
        ends = true;
      } else {
        callback = callback_;
        callback_ = nullptr;
        grpc_slice_buffer_swap(slices_, &incoming_);
      }
    }
    reading_ = read_on || parked_ || ends;
  }
  if (ends) return EndInTurn();
  if (callback != nullptr) {
    ExecCtx::Run(DEBUG_LOCATION, callback, error);
  } else if (read_on) {
    // Not at once: if more has come, the read ends at once as well, and so on, and a
    // peer that sends without a pause would use up the stack.
    ExecCtx::Run(DEBUG_LOCATION, &on_discard_, absl::OkStatus());
  } else if (finished) {
    Finish();
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

void Connection::OnDiscard(void* arg, grpc_error_handle /*error*/) {
  static_cast<Connection*>(arg)->Discard();
}

void Connection::Discard() {
  grpc_slice_buffer_reset_and_unref(&incoming_);
  ReadOn(/*urgent=*/false, /*min_progress=*/1);
}

void Connection::Write(grpc_endpoint* endpoint, grpc_slice_buffer* slices,
                  grpc_closure* callback, void* arg, int max_frame_size) {
  Connection* self = From(endpoint);
  grpc_closure* acknowledged;
  {
    std::lock_guard<std::mutex> lock(self->mutex_);
    // C-core begins a write when the one before has ended.
    self->NoteWritten();
    // A write ends where a frame does.
    if (!self->owed_resets_.empty()) Put(&self->owed_resets_, slices);
    acknowledged = self->FollowWritten(slices);
    if (self->goaway_under_way_ || self->IsDraining()) {
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

bool Connection::ShutDown(uint32_t code, grpc_closure** callback, bool* read_on) {
  shut_down_ = true;
  is_blamed_ = is_blamed_ || code != 0;
  *callback = std::exchange(callback_, nullptr);
  // C-core ends a connection when what it writes has been written. If GOAWAY does not fit into the
  // socket's buffer, the peer gets along without, as with the end of TLS.
  std::string goaway;
  if (code != 0 && !goaway_written_ && !frames_.BeforeFirst()) goaway = Goaway(code);
  if (!ended_ && is_tls_) {
    touchdown::SayGoodbye(inner_, fd_, goaway);
  } else if (!ended_ && !goaway.empty()) {
    send(fd_, goaway.data(), goaway.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  }
  const bool linger = !ended_ && shutdown(fd_, SHUT_WR) == 0;
  if (linger && !reading_) {
    reading_ = true;
    parked_ = cut_ && !drops_;
    *read_on = !parked_;
  }
  return linger;
}

void Connection::Shutdown(grpc_endpoint* endpoint, grpc_error_handle why) {
  Connection* self = From(endpoint);
  const uint32_t code = CodeOf(why);
  grpc_closure* callback;
  bool linger;
  bool read_on = false;
  {
    std::lock_guard<std::mutex> lock(self->mutex_);
    if (self->shut_down_) return;
    linger = self->ShutDown(code, &callback, &read_on);
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
    StopAlarm();
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
