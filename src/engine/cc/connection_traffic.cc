// What passes on a connection, and how far it has got.
//
// Compiled without NDEBUG, as shim.cc is, and careful in the same way.

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "connection.h"
#include "src/core/lib/gprpp/debug_location.h"
#include "src/core/lib/iomgr/exec_ctx.h"
#include "src/core/lib/transport/http2_errors.h"
#include "tls.h"

namespace touchdown {

using grpc_core::Timestamp;

namespace {

// Where `tcpi_bytes_acked` and `tcpi_bytes_received` stand in what TCP_INFO gives, in words of 8
// bytes. Linux has them since 4.1 (include/uapi/linux/tcp.h); the C library's header does not.
constexpr size_t kBytesAcked = 15;
constexpr size_t kBytesReceived = 16;

// The number of that setting (RFC 9113, 6.5.2).
constexpr uint16_t kMaxConcurrentStreams = 3;

// SETTINGS with ACK (RFC 9113, 6.5).
constexpr uint8_t kSettingsAck[9] = {0, 0, 0, 4, 1, 0, 0, 0, 0};

// Whether C-core resets a call with this error code (RFC 9113, 7) because of what the peer has sent on it. The others it has
// from the server: a call that is over or cut, or for which there is no memory.
bool IsPeersFault(uint32_t code) {
  switch (code) {
    case GRPC_HTTP2_PROTOCOL_ERROR:
    case GRPC_HTTP2_INTERNAL_ERROR:
    case GRPC_HTTP2_FLOW_CONTROL_ERROR:
    case GRPC_HTTP2_STREAM_CLOSED:
    case GRPC_HTTP2_FRAME_SIZE_ERROR:
    case GRPC_HTTP2_COMPRESSION_ERROR:
      return true;
    default:
      return false;
  }
}

}  // namespace

void Connection::Look(touchdown_connection_view* view) {
  std::lock_guard<std::mutex> lock(mutex_);
  *view = {};
  view->gone = finished_;
  if (finished_) return;
  view->over = shut_down_ && ended_;
  uint64_t received = received_;
  const uint64_t acked = Acked(&received);
  view->received = received;
  view->arrived = acked;
  view->calls = calls_.count();
  view->open = static_cast<uint32_t>(calls_.open());
  view->unread = Left(FIONREAD) + static_cast<int32_t>(waiting_.length);
  view->queued = Left(TIOCOUTQ);
  view->unacknowledged = is_tcp_ ? view->queued : 0;
  view->idle = calls_.open() > 0 ? 0 : static_cast<uint64_t>(std::max<int64_t>(
      (grpc_core::Timestamp::Now() - idle_since_).millis(), 0));
  answers_.Arrived(acked);
  view->undelivered = static_cast<uint32_t>(answers_.written());
  // Of what is encrypted, and of what a unix socket has taken in part, nobody can say.
  view->arrived_of_write = static_cast<uint32_t>(
      is_tcp_ && !is_tls_ ? answers_.ArrivedOfBegun(acked) : 0);
  view->writing = static_cast<uint32_t>(answers_.begun()) - view->arrived_of_write;
  view->mid_frame = (!frames_.InPreface() && !frames_.AtBoundary()) ||
                    (is_tls_ && touchdown::IsInRecord(inner_));
  view->acknowledged = acknowledged_;
  view->ping_arrived = acknowledged_ || (goaway_place_ != 0 && acked >= goaway_place_);
}

bool Connection::BeginCall(uint32_t stream) {
  // What comes again of a call that was refused are its trailers.
  if (stream <= refused_ || calls_.open() >= most_calls_ || !calls_.Begin(stream)) return false;
  if (!watched_) {
    watched_ = true;
    events_.busy(arg_);
  }
  const size_t open = server_->open_calls.fetch_add(1, std::memory_order_relaxed);
  if (open >= server_->most_calls.load(std::memory_order_relaxed)) events_.crowded(arg_);
  return true;
}

bool Connection::EndCall(uint32_t stream) {
  if (!calls_.End(stream)) return false;
  server_->open_calls.fetch_sub(1, std::memory_order_relaxed);
  if (calls_.open() == 0) idle_since_ = grpc_core::Timestamp::Now();
  return true;
}

size_t Connection::PassSpan(uint32_t least, bool counts, uint8_t spans) {
  std::lock_guard<std::mutex> lock(mutex_);
  return calls_.PassSpan(least, counts, spans);
}

bool Connection::Rest(size_t calls) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!finished_ && (calls_.open() > calls || Left(TIOCOUTQ) > 0)) return false;
  watched_ = false;
  return true;
}

int Connection::Left(unsigned long request) const {
  int bytes = 0;
  return ioctl(fd_, request, &bytes) == 0 ? bytes : 0;
}

uint64_t Connection::Acked(uint64_t* received) const {
  const uint64_t left = static_cast<uint64_t>(Left(TIOCOUTQ));
  const uint64_t acked = place_ - std::min(place_, left);
  if (!is_tcp_) return acked;
  uint64_t info[32];
  socklen_t size = sizeof(info);
  if (getsockopt(fd_, IPPROTO_TCP, TCP_INFO, info, &size) != 0 ||
      size < (kBytesReceived + 1) * sizeof(info[0])) {
    return acked;
  }
  // Emulators know less, and say 0.
  if (received != nullptr) *received = std::max(*received, info[kBytesReceived]);
  return std::max(acked, info[kBytesAcked]);
}

bool Connection::HasEnded(const grpc_error_handle& error) {
  return !error.ok() && (!is_tls_ || touchdown::HasTcpEnded(inner_));
}

void Connection::NoteLost(const grpc_error_handle& error) {
  intptr_t number = 0;
  if (error.ok() || ended_ ||
      !grpc_error_get_int(error, grpc_core::StatusIntProperty::kErrorNo, &number) ||
      number == ECONNRESET || number == EPIPE) {
    return;
  }
  answers_.Arrived(Acked());
  lost_ = static_cast<uint32_t>(answers_.written());
}

bool Connection::Follow(bool draining) {
  // Behind what C-core has got of a header comes the rest of that header.
  const bool kept = !frames_.HeaderComplete() && frames_.header_count() > header_delivered_;
  const bool sorting = draining || opening_ || kept;
  const size_t one_go = server_->turns.OneGo();
  const Timestamp now = Timestamp::Now();
  std::string rest;
  bool of_call = false;
  size_t begun = 0;
  // How far what has come was followed, where the frame under way begins in it, and what C-core gets of it.
  size_t place = 0;
  size_t frame_place = 0;
  // Whether that frame begins in it, behind all that belongs together.
  bool at_boundary = false;
  size_t end = incoming_.length;
  for (size_t i = 0; i < incoming_.count && end == incoming_.length; ++i) {
    uint8_t* bytes = GRPC_SLICE_START_PTR(incoming_.slices[i]);
    size_t left = GRPC_SLICE_LENGTH(incoming_.slices[i]);
    while (left > 0) {
      const bool was_header = !frames_.InPreface() && frames_.AtHeader();
      if (was_header && (frames_.HeaderComplete() || frames_.header_count() == 0)) {
        frame_place = place;
        at_boundary = !frames_.InHeaders();
        if (begun >= one_go && Frames::MayBeHeaders(bytes, left)) {
          end = place;
          break;
        }
      }
      const size_t taken = frames_.Take(bytes, left);
      place += taken;
      touchdown_verdict verdict = TOUCHDOWN_PASS;
      bool diverts = false;
      if (was_header && frames_.HeaderComplete()) {
        verdict = Judge(now, &diverts);
        of_call = of_call || frames_.IsOfCall();
        // Those of calls that do not begin take time as well.
        begun += frames_.IsHeaders();
      } else if (looking_ && !was_header) {
        verdict = guard_.GoesOn(bytes, taken);
      }
      if (verdict > TOUCHDOWN_LOOK) Note(verdict);
      if (verdict == TOUCHDOWN_CUT) {
        // C-core would have its own opinion of the frame.
        end = frame_place;
        ends_at_boundary_ = was_header && at_boundary;
        break;
      }
      if (verdict == TOUCHDOWN_DIVERT || diverts) {
        // Of the header the last byte has come just now.
        frames_.Divert();
        bytes[taken - 1] &= 0xfe;
      }
      if (sorting && verdict != TOUCHDOWN_SWALLOW) Sort(was_header, bytes, taken, &rest);
      if (owes_settings_ack_ && frames_.AtHeader()) {
        owes_settings_ack_ = false;
        rest.append(reinterpret_cast<const char*>(kSettingsAck), sizeof(kSettingsAck));
      }
      bytes += taken;
      left -= taken;
      if (HasNoted()) {
        end = place;
        break;
      }
    }
  }
  if (begun > 0) server_->turns.Use(begun);
  if (of_call) last_of_call_ = now;
  KeepTime(now, /*headers_began=*/begun > 0);
  if (noted_ == TOUCHDOWN_CUT) {
    const size_t left = incoming_.length - end;
    if (left > 0) grpc_slice_buffer_trim_end(&incoming_, left, &waiting_);
  } else {
    LetWait(end);
  }
  if (sorting) return Replace(&rest);
  header_delivered_ = frames_.HeaderComplete() ? 0 : frames_.header_count();
  return false;
}

void Connection::Announce(uint8_t* bytes, size_t count) {
  // Each setting has six bytes: its number, and its value (RFC 9113, 6.5.1).
  for (size_t i = 0; i < count; ++i) {
    const size_t place = setting_count_++ % 6;
    if (place < 2) {
      setting_ = static_cast<uint16_t>(setting_ << 8 | bytes[i]);
    } else if (setting_ == kMaxConcurrentStreams) {
      bytes[i] = static_cast<uint8_t>(most_calls_ >> (8 * (5 - place)));
    }
  }
}

grpc_closure* Connection::FollowWritten(grpc_slice_buffer* slices) {
  bool pinged = false;
  uint32_t frames = 0;
  uint32_t resets = 0;
  uint64_t data = 0;
  uint64_t place = written_;
  written_ += slices->length;
  for (size_t i = 0; i < slices->count; ++i) {
    uint8_t* bytes = GRPC_SLICE_START_PTR(slices->slices[i]);
    size_t left = GRPC_SLICE_LENGTH(slices->slices[i]);
    while (left > 0) {
      const bool was_header = written_frames_.AtHeader();
      const size_t taken = written_frames_.Take(bytes, left);
      place += taken;
      if (!was_header) {
        if (written_frames_.IsPing()) {
          const size_t room = kPingPayload - ping_count_;
          memcpy(ping_ + ping_count_, bytes, std::min(room, taken));
          ping_count_ += std::min(room, taken);
        } else if (written_frames_.IsSettings()) {
          Announce(bytes, taken);
        } else if (written_frames_.IsReset() || written_frames_.IsGoaway()) {
          resets += FollowNumber(bytes, taken);
        }
      } else if (written_frames_.HeaderComplete()) {
        if (written_frames_.IsOfCall()) ++frames;
        if (written_frames_.IsData()) data += written_frames_.payload_left();
        number_count_ = 0;
        setting_count_ = 0;
        if (written_frames_.IsEnd()) {
          if (EndCall(written_frames_.stream())) {
            answers_.Begin(place + written_frames_.payload_left());
            guard_.Ended(written_frames_.stream());
          }
        } else if (written_frames_.IsData()) {
          if (written_frames_.payload_left() >= OpenCalls::kLeastPiece) {
            calls_.Move(written_frames_.stream(), written_frames_.payload_left());
          }
        } else if (written_frames_.IsReset()) {
          if (EndCall(written_frames_.stream())) guard_.Ended(written_frames_.stream());
        } else if (written_frames_.IsGoaway()) {
          goaway_written_ = true;
          goaway_under_way_ = is_held_;
        } else if (written_frames_.IsPing()) {
          ping_count_ = 0;
          pinged = true;
        }
      }
      bytes += taken;
      left -= taken;
    }
  }
  if (frames > 0 || resets > 0) {
    Note(guard_.Written(frames, data, resets, Timestamp::Now()));
  }
  if (!pinged) return nullptr;
  goaway_ping_written_ = goaway_written_;
  if (!final_) return nullptr;
  if (!frames_.AtBoundary()) {
    owes_ack_ = true;
    return nullptr;
  }
  AcknowledgeForPeer();
  return DeliverHeld();
}

uint32_t Connection::FollowNumber(const uint8_t* bytes, size_t count) {
  constexpr int kWhole = 4;
  for (; count > 0 && number_count_ < kWhole; --count, ++number_count_) {
    number_ = number_ << 8 | *bytes++;
    if (number_count_ + 1 < kWhole) continue;
    if (written_frames_.IsReset()) {
      ++number_count_;
      return IsPeersFault(number_) && !IsDraining();
    }
    if (sent_away_) calls_.Stop(number_ & 0x7fffffff);
  }
  return 0;
}

void Connection::OnWritten(void* arg, grpc_error_handle error) {
  Connection* self = static_cast<Connection*>(arg);
  grpc_closure* callback;
  bool go_on = false;
  bool take_waiting = false;
  {
    std::lock_guard<std::mutex> lock(self->mutex_);
    callback = std::exchange(self->write_callback_, nullptr);
    if (error.ok()) {
      self->NoteWritten();
    } else {
      self->NoteLost(error);
    }
    if (std::exchange(self->goaway_under_way_, false) && error.ok()) {
      self->is_held_ = false;
      go_on = !self->reading_ && self->callback_ != nullptr;
      if (go_on) self->reading_ = true;
      take_waiting = go_on && self->waiting_.length > 0;
    }
  }
  grpc_core::ExecCtx::Run(DEBUG_LOCATION, callback, error);
  // In this order: once C-core knows that GOAWAY is written, it begins no more calls.
  if (take_waiting) {
    grpc_core::ExecCtx::Run(DEBUG_LOCATION, &self->on_waiting_, absl::OkStatus());
  } else if (go_on) {
    self->ReadOn(/*urgent=*/false, /*min_progress=*/1);
  }
}

void Connection::NoteWritten() {
  place_ = is_tls_ ? touchdown::Encrypted(inner_) : written_;
  if (is_tcp_) {
    answers_.End(place_, /*are_known=*/!is_tls_);
  } else {
    answers_.EndAtPeer();
  }
  if (goaway_ping_written_ && goaway_place_ == 0) goaway_place_ = place_;
  if (answers_.AreMany()) answers_.Arrived(Acked());
}

}  // namespace touchdown
