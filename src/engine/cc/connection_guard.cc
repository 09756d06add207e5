// What the guard says of what the peer sends, and what is done about it.
//
// Compiled without NDEBUG, as shim.cc is, and careful in the same way.

#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "connection.h"
#include "src/core/lib/gprpp/debug_location.h"
#include "src/core/lib/gprpp/status_helper.h"
#include "src/core/lib/iomgr/exec_ctx.h"
#include "src/core/lib/transport/http2_errors.h"

namespace touchdown {
namespace {

using grpc_core::Duration;
using grpc_core::ExecCtx;
using grpc_core::StatusIntProperty;
using grpc_core::Timestamp;

// How long headers may take from their first byte to their last. 16 KiB, the most that a server takes by default, are
// there in a third of that at 32 kbit/s; and the network may stand still for ten seconds in between.
constexpr Duration kHeaderTime = Duration::Seconds(15);

// How long a peer that is cut has to take GOAWAY.
constexpr Duration kLastTime = Duration::Seconds(1);

}  // namespace

touchdown_verdict Connection::Judge(Timestamp now, bool* diverts) {
  const uint32_t stream = frames_.stream();
  bool is_open = false;
  if (frames_.IsData()) {
    is_open = calls_.IsOpen(stream);
    const size_t count = frames_.payload_left();
    if (is_open && count >= OpenCalls::kLeastPiece) calls_.Move(stream, count);
  } else if (frames_.IsHeaders()) {
    const bool is_first = stream > calls_.last() && stream % 2 != 0;
    const bool is_full = calls_.open() >= most_calls_;
    const bool begins = BeginCall(stream);
    is_open = is_first ? !is_full : calls_.IsOpen(stream);
    *diverts = diverting_ = is_first && !begins;
    if (is_first && is_full && stream > refused_) {
      refused_ = stream;
      if (!sent_away_) owed_resets_ += Reset(stream, GRPC_HTTP2_REFUSED_STREAM);
    }
  } else if (frames_.IsContinuation()) {
    *diverts = diverting_;
  } else if (frames_.IsReset()) {
    EndCall(stream);
  }
  const touchdown_verdict verdict = guard_.Begins(frames_, is_open, now);
  looking_ = verdict == TOUCHDOWN_LOOK;
  return verdict;
}

void Connection::Blame() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (finished_ || shut_down_) return;
  // It is acted upon when C-core reads next: who floods has sent more.
  Note(guard_.Written(/*frames=*/0, /*data=*/0, /*resets=*/1, Timestamp::Now()));
}

void Connection::Note(touchdown_verdict verdict) {
  switch (verdict) {
    case TOUCHDOWN_PASS:
    case TOUCHDOWN_LOOK:
    case TOUCHDOWN_DIVERT:
      break;
    case TOUCHDOWN_OPEN:
      owes_settings_ack_ = true;
      acknowledge_by_ = Timestamp::Now() + acknowledge_time_;
      break;
    case TOUCHDOWN_SWALLOW:
      opening_ = false;
      acknowledge_by_ = Timestamp::InfFuture();
      break;
    case TOUCHDOWN_SEND_AWAY:
    case TOUCHDOWN_CUT:
      sent_away_ = is_blamed_ = true;
      ends_at_boundary_ = frames_.AtBoundary();
      if (!cut_) noted_ = std::max(noted_, verdict);
      break;
  }
}

void Connection::LetWait(size_t count) {
  if (count >= incoming_.length) return;
  grpc_slice_buffer rest;
  grpc_slice_buffer_init(&rest);
  grpc_slice_buffer_swap(&rest, &incoming_);
  if (count > 0) grpc_slice_buffer_move_first(&rest, count, &incoming_);
  grpc_slice_buffer_move_into(&rest, &waiting_);
  grpc_slice_buffer_destroy(&rest);
}

void Connection::Hold(touchdown_verdict noted) {
  if (noted == TOUCHDOWN_CUT) {
    cut_ = true;
    grpc_slice_buffer_reset_and_unref(&waiting_);
    gone_by_ = Timestamp::Now() + kLastTime;
    SetAlarm();
  } else if (noted == TOUCHDOWN_SEND_AWAY) {
    // What comes behind must not begin before C-core knows that GOAWAY is written. In a drain there
    // may be no more of them, and with no error C-core asks the peer first.
    uint32_t code;
    guard_.Fault(&code);
    is_held_ = code != GRPC_HTTP2_NO_ERROR && !IsDraining();
  }
}

void Connection::Act(touchdown_verdict noted) {
  const grpc_error_handle error = WhyGoaway(noted);
  grpc_transport_op* op = grpc_make_transport_op(nullptr);
  (noted == TOUCHDOWN_CUT ? op->disconnect_with_error : op->goaway_error) = error;
  grpc_transport_perform_op(transport_, op);
}

grpc_error_handle Connection::WhyGoaway(touchdown_verdict noted) {
  uint32_t code = 0;
  std::string text;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    text = guard_.Fault(&code);
  }
  events_.sent_away(arg_, code, text.c_str(), noted == TOUCHDOWN_CUT);
  return grpc_error_set_int(absl::UnavailableError(text),
                            StatusIntProperty::kHttp2Error,
                            static_cast<intptr_t>(code));
}

void Connection::ComeInTurn() {
  if (!server_->turns.Wait([this] { TakeWaiting(); }) &&
      !RunInTurn([this] { TakeWaiting(); })) {
    ExecCtx::Run(DEBUG_LOCATION, &on_waiting_, absl::OkStatus());
  }
}

void Connection::OnWaiting(void* arg, grpc_error_handle /*error*/) {
  static_cast<Connection*>(arg)->TakeWaiting();
}

void Connection::TakeWaiting() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    grpc_slice_buffer_reset_and_unref(&incoming_);
    grpc_slice_buffer_swap(&incoming_, &waiting_);
  }
  Came(absl::OkStatus(), /*is_new=*/false);
}

std::string Connection::Reset(uint32_t stream, uint32_t code) {
  // RFC 9113, 6.4.
  std::string frame("\0\0\x04\x03\0", 5);
  for (const uint32_t number : {stream, code}) {
    for (int shift = 24; shift >= 0; shift -= 8) {
      frame.push_back(static_cast<char>(number >> shift));
    }
  }
  return frame;
}

std::string Connection::Goaway(uint32_t code) const {
  std::string frame("\0\0\x08\x07\0\0\0\0\0", 9);
  for (const uint32_t number : {calls_.last(), code}) {
    for (int shift = 24; shift >= 0; shift -= 8) {
      frame.push_back(static_cast<char>(number >> shift));
    }
  }
  return frame;
}

uint32_t Connection::CodeOf(const grpc_error_handle& why) {
  const std::string text = grpc_core::StatusToString(why);
  if (!absl::StrContains(text, "Failed parsing HTTP/2")) return 0;
  return absl::StrContains(text, "Frame size") ? GRPC_HTTP2_FRAME_SIZE_ERROR
                                               : GRPC_HTTP2_PROTOCOL_ERROR;
}

void Connection::KeepTime(Timestamp now, bool headers_began) {
  if (!frames_.InHeaders()) {
    headers_by_ = Timestamp::InfFuture();
  } else if (headers_began || headers_by_ == Timestamp::InfFuture()) {
    headers_by_ = now + kHeaderTime;
  }
  SetAlarm();
}

void Connection::SetAlarm() {
  const Timestamp at = std::min({acknowledge_by_, headers_by_, gone_by_});
  if (at == Timestamp::InfFuture()) return StopAlarm();
  if (alarm_set_) {
    // Its end sets it anew.
    if (at < alarm_at_) StopAlarm();
    return;
  }
  alarm_set_ = true;
  alarm_at_ = at;
  Reference();
  grpc_timer_init(&alarm_, at, &on_alarm_);
}

void Connection::StopAlarm() {
  if (alarm_set_) grpc_timer_cancel(&alarm_);
}

void Connection::OnAlarm(void* arg, grpc_error_handle /*error*/) {
  Connection* self = static_cast<Connection*>(arg);
  grpc_closure* callback = nullptr;
  bool discard = false;
  {
    std::lock_guard<std::mutex> lock(self->mutex_);
    self->alarm_set_ = false;
    const Timestamp now = Timestamp::Now();
    if (self->shut_down_) self->acknowledge_by_ = self->headers_by_ = Timestamp::InfFuture();
    const bool is_there = self->Left(FIONREAD) > 0 || self->waiting_.length > 0;
    if (is_there || self->calls_.open() > 0) {
      // The process may have stood still: what is missing may be there. And no call is lost for an
      // acknowledgement, of which nothing depends.
      self->acknowledge_by_ = std::max(self->acknowledge_by_, now + kLastTime);
    }
    if (is_there) self->headers_by_ = std::max(self->headers_by_, now + kLastTime);
    if (std::min(self->acknowledge_by_, self->headers_by_) <= now) {
      self->Note(self->guard_.Overdue(self->headers_by_ <= now));
      self->acknowledge_by_ = self->headers_by_ = Timestamp::InfFuture();
      // C-core reads with nothing, and then once more.
      callback = std::exchange(self->callback_, nullptr);
    }
    if (self->gone_by_ <= now && !self->finished_) {
      self->gone_by_ = Timestamp::InfFuture();
      self->drops_ = true;
      discard = std::exchange(self->parked_, false);
      // A peer that goes on to write would wait for room, and never hear that there is nobody.
      const linger reset = {1, 0};
      setsockopt(self->fd_, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
      shutdown(self->fd_, SHUT_RDWR);
    }
    if (!self->finished_) self->SetAlarm();
  }
  if (callback != nullptr) {
    ExecCtx::Run(DEBUG_LOCATION, callback, absl::OkStatus());
  }
  if (discard) self->Discard();
  self->Unreference();
}

}  // namespace touchdown
