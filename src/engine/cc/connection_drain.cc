// What a connection does in a drain: it holds the acks of pings back.
//
// Compiled without NDEBUG, as shim.cc is, and careful in the same way.

#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>

#include "connection.h"
#include "event_engine.h"
#include "src/core/lib/gprpp/debug_location.h"
#include "src/core/lib/iomgr/exec_ctx.h"

namespace touchdown {
namespace {

using grpc_core::Duration;
using grpc_core::ExecCtx;
using grpc_core::Timestamp;

// How long nothing of a call may have come in before the ack of the drain's
// ping is believed, and how long the ack is held back at the least. On a busy
// machine calls were seen to come 7 ms behind the ack. Most clients close the
// connection by themselves when told to go, and so do not wait for this.
constexpr Duration kQuiet = Duration::Milliseconds(50);
constexpr Duration kHeldAtLeast = Duration::Milliseconds(2);

// How long it is waited for a connection to be quiet before its ack is believed all the
// same. A client that begins calls for so long after having acknowledged GOAWAY does not
// mind it, and is told the last one that is served. What counts is the time that was to be waited:
// the clock goes on while the process stands still.
constexpr Duration kHeldAtMost = Duration::Seconds(1);

// How many bytes of acks are held back. One has 17, and there is hardly ever more
// than one on its way.
constexpr size_t kMostHeld = 256;

// An acknowledged ping (RFC 9113, 6.7), but for its payload.
constexpr uint8_t kPingAck[9] = {0, 0, 8, 6, 1, 0, 0, 0, 0};

// GOAWAY with 0 as the last stream, and no error (RFC 9113, 6.8).
constexpr uint8_t kNothingServed[17] = {0, 0, 8, 7};

}  // namespace

touchdown_finish_result Connection::FinishCalls() {
  grpc_closure* callback = nullptr;
  grpc_error_handle error;
  bool read_on = false;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (finished_ || shut_down_ || ended_) return TOUCHDOWN_FINISHED;
    if (cut_) return TOUCHDOWN_FINISHED;
    if (Left(FIONREAD) > 0 || waiting_.length > 0) return TOUCHDOWN_NOT_YET;
    if (frames_.BeforeFirst() || (calls_.count() == 0 && !frames_.AtBoundary())) {
      // Behind TLS it could not be read, and into what is being written nothing may come.
      if (!is_tls_ && goaway_written_ && write_callback_ == nullptr) {
        send(fd_, kNothingServed, sizeof(kNothingServed), MSG_DONTWAIT | MSG_NOSIGNAL);
      }
      error = absl::UnavailableError("the peer has not begun a call");
      // If not, the connection is about to end by itself.
      if (ShutDown(/*code=*/0, &callback, &read_on)) events_.lingering(arg_);
    } else if (!frames_.AtBoundary()) {
      return TOUCHDOWN_MID_FRAME;
    } else {
      final_ = true;
      AcknowledgeForPeer();
      callback = DeliverHeld();
    }
  }
  if (callback != nullptr) ExecCtx::Run(DEBUG_LOCATION, callback, error);
  if (read_on) Discard();
  return TOUCHDOWN_FINISHED;
}

bool Connection::SendAway() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (leaving_ || sent_away_ || finished_ || shut_down_ || destroyed_) return true;
  // While C-core waits for a read, that read has a reference to the transport.
  if (callback_ == nullptr) return false;
  // Before GOAWAY, so that no ack gets through.
  leaving_ = true;
  touchdown::WaitForAcknowledgements();
  grpc_transport_op* op = grpc_make_transport_op(nullptr);
  op->goaway_error = grpc_error_set_int(GRPC_ERROR_CREATE("the connection is sent away"),
                                        grpc_core::StatusIntProperty::kRpcStatus,
                                        GRPC_STATUS_OK);
  // It is done by whoever has the transport, with no lock of ours.
  grpc_transport_perform_op(transport_, op);
  return true;
}

void Connection::Sort(bool was_header, const uint8_t* bytes, size_t count,
          std::string* rest) {
  if (!was_header) {
    (holding_ ? held_ : *rest)
        .append(reinterpret_cast<const char*>(bytes), count);
    if (holding_ && frames_.AtBoundary()) {
      const char* payload = held_.data() + held_.size() - kPingPayload;
      acknowledged_ = acknowledged_ || (goaway_ping_written_ &&
                                        memcmp(payload, ping_, kPingPayload) == 0);
    }
    return;
  }
  // A header is passed on when it is complete; of one that was under way when
  // the drain began C-core has a part already.
  if (!frames_.HeaderComplete()) return;
  holding_ = frames_.IsPingAck() && header_delivered_ == 0 &&
             held_.size() < kMostHeld;
  (holding_ ? held_ : *rest)
      .append(reinterpret_cast<const char*>(frames_.header()) +
                  header_delivered_,
              frames_.header_count() - header_delivered_);
  header_delivered_ = 0;
}

bool Connection::Replace(std::string* rest) {
  grpc_slice_buffer_reset_and_unref(&incoming_);
  if (owes_ack_ && frames_.AtBoundary()) {
    owes_ack_ = false;
    AcknowledgeForPeer();
    rest->append(held_);
    held_.clear();
  }
  if (!rest->empty()) Put(rest, &incoming_);
  if (!held_.empty() && !timer_set_) SetTimer(kHeldAtLeast);
  return incoming_.count == 0;
}

void Connection::Put(std::string* bytes, grpc_slice_buffer* buffer) {
  grpc_slice_buffer_add(
      buffer, grpc_slice_from_copied_buffer(bytes->data(), bytes->size()));
  bytes->clear();
}

grpc_closure* Connection::DeliverHeld() {
  held_for_ = Duration::Zero();
  if (held_.empty()) return nullptr;
  grpc_closure* callback = callback_;
  callback_ = nullptr;
  if (callback != nullptr) {
    Put(&held_, slices_);
  } else {
    released_.append(held_);
    held_.clear();
  }
  return callback;
}

void Connection::AcknowledgeForPeer() {
  if (ping_count_ < kPingPayload) return;
  held_.append(reinterpret_cast<const char*>(kPingAck), sizeof(kPingAck));
  held_.append(ping_, kPingPayload);
}

void Connection::SetTimer(Duration time) {
  timer_set_ = true;
  held_for_ += time;
  Reference();
  grpc_timer_init(&timer_, Timestamp::Now() + time, &on_timer_);
}

void Connection::OnTimer(void* arg, grpc_error_handle /*error*/) {
  Connection* self = static_cast<Connection*>(arg);
  grpc_closure* callback = nullptr;
  {
    std::lock_guard<std::mutex> lock(self->mutex_);
    self->timer_set_ = false;
    if (!self->shut_down_ && !self->held_.empty()) {
      const Duration quiet = Timestamp::Now() - self->last_of_call_;
      // After a pause of the process nothing may seem to have come for a long time.
      const bool is_quiet = quiet >= kQuiet && self->Left(FIONREAD) == 0;
      const bool may_end = self->frames_.AtBoundary() && self->waiting_.length == 0;
      if (may_end && (is_quiet || self->held_for_ >= kHeldAtMost)) {
        callback = self->DeliverHeld();
      } else {
        // A part of a frame may take long to become a whole one.
        const Duration least =
            self->frames_.AtBoundary() ? Duration::Milliseconds(5) : kQuiet;
        self->SetTimer(std::max(least, kQuiet - quiet));
      }
    }
  }
  if (callback != nullptr) {
    ExecCtx::Run(DEBUG_LOCATION, callback, absl::OkStatus());
  }
  self->Unreference();
}

}  // namespace touchdown
