// C-core compiled for debugging lays out some of its types otherwise than
// C-core compiled with NDEBUG. This file is always compiled without NDEBUG and
// uses only what is safe with both: a `grpc_closure` has its debugging fields
// at its end, so the larger one serves; nothing here touches a `RefCounted`
// but through functions that live in the library. `ChannelArgs` is such a case.

#include "shim.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "closure.h"
#include "filters.h"
#include "src/core/ext/transport/chttp2/transport/chttp2_transport.h"
#include "src/core/lib/channel/channel_args.h"
#include "src/core/lib/channel/channel_args_preconditioning.h"
#include "src/core/lib/channel/channel_stack.h"
#include "src/core/lib/channel/channel_stack_builder.h"
#include "src/core/lib/channel/channelz.h"
#include "src/core/lib/config/core_configuration.h"
#include "src/core/lib/event_engine/channel_args_endpoint_config.h"
#include "src/core/lib/gprpp/debug_location.h"
#include "src/core/lib/gprpp/ref_counted_ptr.h"
#include "src/core/lib/gprpp/time.h"
#include "src/core/lib/iomgr/endpoint.h"
#include "src/core/lib/iomgr/error.h"
#include "src/core/lib/iomgr/ev_posix.h"
#include "src/core/lib/iomgr/exec_ctx.h"
#include "src/core/lib/iomgr/tcp_client_posix.h"
#include "src/core/lib/iomgr/timer.h"
#include "src/core/lib/surface/call.h"
#include "src/core/lib/surface/channel_stack_type.h"
#include "src/core/lib/surface/completion_queue.h"
#include "src/core/lib/surface/server.h"
#include "src/core/lib/transport/http2_errors.h"
#include "src/core/lib/transport/metadata_batch.h"
#include "src/core/lib/transport/transport.h"
#include "threads.h"
#include "tls.h"
#ifndef TOUCHDOWN_CLIENT
#include "without_client.h"
#endif

namespace {
class Connection;

// What the connections of a server share. They may outlive the server.
struct Common {
  // Whether GOAWAY has been sent.
  std::atomic<bool> draining{false};
  std::mutex mutex;
  // Connections with a write that waits for `touchdown_uncork`.
  std::vector<Connection*> corked;
  // A thread that corked two epochs ago holds nothing back any more. Written with
  // `mutex` held.
  std::atomic<uint64_t> epoch{0};
};

// The server whose writes are to wait if this thread begins them. C-core lets a
// thread work for any server of the process, so it is not enough to know that
// some are to wait: nobody would begin another server's.
thread_local const Common* t_corked = nullptr;
thread_local uint64_t t_epoch = 0;
}  // namespace

struct touchdown_arguments {
  grpc_core::ChannelArgs value;
  std::shared_ptr<Common> common;
};

namespace {

using grpc_core::Duration;
using grpc_core::ExecCtx;
using grpc_core::Timestamp;
using grpc_event_engine::experimental::EventEngine;
using touchdown::InitClosure;

// How long nothing of a call may have come in before the ack of the drain's
// ping is believed, and how long the ack is held back at the least. On a busy
// machine calls were seen to come 7 ms behind the ack. Most clients close the
// connection by themselves when told to go, and so do not wait for this.
constexpr Duration kQuiet = Duration::Milliseconds(50);
constexpr Duration kHeldAtLeast = Duration::Milliseconds(2);

// How long it is waited for a connection to be quiet before its ack is believed all the
// same. Whoever begins calls for so long after having acknowledged GOAWAY does not mind it,
// and is told the last one that is served. What counts is the time that was to be waited:
// the clock goes on while the process stands still.
constexpr Duration kHeldAtMost = Duration::Seconds(1);

// How many answers are remembered before it is asked which of them have arrived.
constexpr size_t kFewAnswers = 32;

// Where `tcpi_bytes_acked` and `tcpi_bytes_received` stand in what TCP_INFO gives, in words of 8
// bytes. Linux has them since 4.1 (include/uapi/linux/tcp.h); the C library's header does not.
constexpr size_t kBytesAcked = 15;
constexpr size_t kBytesReceived = 16;

// How many bytes of acks are held back. One has 17, and there is hardly ever more
// than one on its way.
constexpr size_t kMostHeld = 256;

// How many calls a client may reset on one connection, at once and per second. More
// is an attack: a call that is begun and reset costs the client next to nothing, does
// not count against the concurrent streams, and C-core takes in as many as come
// (CVE-2023-44487). nghttp2 allows 1000 and 33; clients of gRPC reset every call
// whose deadline passes, so they get more.
constexpr double kResetsAtOnce = 1000;
constexpr double kResetsPerSecond = 500;

// An acknowledged ping (RFC 9113, 6.7), but for its payload.
constexpr uint8_t kPingAck[9] = {0, 0, 8, 6, 1, 0, 0, 0, 0};
constexpr size_t kPingPayload = 8;

// GOAWAY with 0 as the last stream, and no error (RFC 9113, 6.8).
constexpr uint8_t kNothingServed[17] = {0, 0, 8, 7};

// Follows the frames in what a side sends (RFC 9113, 3.4 and 4.1).
class Frames {
 public:
  // A client begins with a preface, a server does not.
  explicit Frames(bool of_client) : preface_left_(of_client ? 24 : 0) {}

  // The bytes of a run that belong together: to one frame's header, to one
  // frame's payload, or to the preface.
  size_t Take(const uint8_t* bytes, size_t count) {
    if (preface_left_ > 0) {
      count = std::min(count, preface_left_);
      preface_left_ -= count;
      return count;
    }
    if (payload_left_ > 0) {
      count = std::min(count, payload_left_);
      payload_left_ -= count;
      first_seen_ = first_seen_ || payload_left_ == 0;
      return count;
    }
    if (header_count_ == sizeof(header_)) header_count_ = 0;
    count = std::min(count, sizeof(header_) - header_count_);
    memcpy(header_ + header_count_, bytes, count);
    header_count_ += count;
    if (header_count_ == sizeof(header_)) {
      payload_left_ = size_t{header_[0]} << 16 | size_t{header_[1]} << 8 |
                      size_t{header_[2]};
      first_seen_ = first_seen_ || payload_left_ == 0;
      // HEADERS and CONTINUATION, until END_HEADERS.
      if (header_[3] == 1 || header_[3] == 9) in_block_ = (header_[4] & 4) == 0;
    }
    return count;
  }

  bool InPreface() const { return preface_left_ > 0; }
  // Not a whole frame has been seen.
  bool BeforeFirst() const { return !first_seen_; }
  // Between two frames: nothing of the next has been seen, nor has it to be the rest of what
  // the last one has begun (RFC 9113, 6.10).
  bool AtBoundary() const {
    return preface_left_ == 0 && payload_left_ == 0 && !in_block_ &&
           (header_count_ == 0 || header_count_ == sizeof(header_));
  }
  // The next byte is one of a header.
  bool AtHeader() const { return payload_left_ == 0; }
  bool HeaderComplete() const { return header_count_ == sizeof(header_); }
  const uint8_t* header() const { return header_; }
  size_t header_count() const { return header_count_; }
  // Of the frame whose header is complete.
  // Of the one length that is allowed.
  bool IsPingAck() const {
    return header_[0] == 0 && header_[1] == 0 && header_[2] == 8 &&
           header_[3] == 6 && (header_[4] & 1) != 0;
  }
  bool IsPing() const { return header_[3] == 6 && (header_[4] & 1) == 0; }
  bool IsGoaway() const { return header_[3] == 7; }
  bool IsReset() const { return header_[3] == 3; }
  bool IsHeaders() const { return header_[3] == 1; }
  // Of DATA and HEADERS: whether it is the last of its side.
  bool IsEnd() const { return header_[3] <= 1 && (header_[4] & 1) != 0; }
  uint32_t stream() const {
    return (uint32_t{header_[5]} & 0x7f) << 24 | uint32_t{header_[6]} << 16 |
           uint32_t{header_[7]} << 8 | uint32_t{header_[8]};
  }
  size_t payload_left() const { return payload_left_; }
  // DATA, HEADERS or CONTINUATION.
  bool IsOfCall() const {
    return header_[3] == 0 || header_[3] == 1 || header_[3] == 9;
  }

 private:
  size_t preface_left_;
  bool first_seen_ = false;
  bool in_block_ = false;
  size_t payload_left_ = 0;
  size_t header_count_ = 0;
  uint8_t header_[9];
};

// The calls of a connection of which no side has sent the end: their streams, in order.
class OpenCalls {
 public:
  void Begin(uint32_t stream) {
    // What comes again with HEADERS are trailers; clients have no even streams.
    if (stream <= last_ || stream % 2 == 0) return;
    last_ = stream;
    ++count_;
    streams_.push_back(stream);
  }
  // Whether it was open.
  bool End(uint32_t stream) {
    const auto it = std::lower_bound(streams_.begin(), streams_.end(), stream);
    if (it == streams_.end() || *it != stream) return false;
    streams_.erase(it);
    return true;
  }
  size_t open() const { return streams_.size(); }
  uint64_t count() const { return count_; }

 private:
  std::vector<uint32_t> streams_;
  uint32_t last_ = 0;
  uint64_t count_ = 0;
};

// Which answers have reached the peer's kernel. A place is a number of bytes since the
// connection began.
class Answers {
 public:
  // One ends at `place`, in a write that has been begun.
  void Begin(uint64_t place) { begun_.push_back(place); }
  // The write is with the kernel, and ends at `place`; so do its answers, if theirs are not
  // known.
  void End(uint64_t place, bool are_known) {
    for (const uint64_t it : begun_) written_.push_back(are_known ? it : place);
    begun_.clear();
  }
  // Those of the write are with the peer.
  void EndAtPeer() { begun_.clear(); }
  // Everything up to `place` is there.
  void Arrived(uint64_t place) {
    written_.erase(written_.begin(),
                   std::upper_bound(written_.begin(), written_.end(), place));
    few_ = std::max(kFewAnswers, written_.size() * 2);
  }
  bool AreMany() const { return written_.size() >= few_; }
  size_t written() const { return written_.size(); }
  size_t begun() const { return begun_.size(); }
  // How many of the write under way are there.
  size_t ArrivedOfBegun(uint64_t place) const {
    return std::upper_bound(begun_.begin(), begun_.end(), place) - begun_.begin();
  }

 private:
  // Both in order.
  std::vector<uint64_t> written_;
  std::vector<uint64_t> begun_;
  size_t few_ = kFewAnswers;
};

// A TCP endpoint that ends gently. C-core's own would lose calls, twice:
//
// - Its graceful GOAWAY takes the ack of a ping for a sign that everything the
//   client had begun has arrived, and ignores later calls. But clients, C-core's
//   among them, send the ack ahead of calls that they have begun to write. This
//   endpoint holds the ack back until the connection has been quiet.
// - To close, it shuts the socket down in both directions: a byte that arrives
//   afterwards (a window update, a ping's ack) makes the kernel answer with RST,
//   and what it had not yet delivered of the last replies is gone. This endpoint
//   sends FIN, then reads and drops until the peer has closed as well.
class Connection {
 public:
  Connection(grpc_endpoint* inner, bool is_tls, int fd,
             std::shared_ptr<Common> common,
             const touchdown_connection_events& events, void* arg)
      : inner_(inner),
        is_tls_(is_tls),
        fd_(fd),
        common_(std::move(common)),
        events_(events),
        arg_(arg) {
    base_.vtable = &kVtable;
    grpc_slice_buffer_init(&incoming_);
    Init(&on_read_, OnRead);
    Init(&on_ready_, OnReady);
    Init(&on_discard_, OnDiscard);
    Init(&on_timer_, OnTimer);
    Init(&on_written_, OnWritten);
    int domain = AF_UNIX;
    socklen_t size = sizeof(domain);
    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size);
    is_tcp_ = domain != AF_UNIX;
  }

  grpc_endpoint* endpoint() { return &base_; }

  void Reference() { references_.fetch_add(1, std::memory_order_relaxed); }

  void Unreference() {
    if (references_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    grpc_slice_buffer_destroy(&incoming_);
    delete this;
  }

  void Look(touchdown_connection_view* view) {
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
    view->unread = Left(FIONREAD);
    view->unacknowledged = is_tcp_ ? Left(TIOCOUTQ) : 0;
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

  touchdown_finish_result FinishCalls() {
    grpc_closure* callback = nullptr;
    grpc_error_handle error;
    bool read_on = false;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (finished_ || shut_down_ || ended_) return TOUCHDOWN_FINISHED;
      if (Left(FIONREAD) > 0) return TOUCHDOWN_NOT_YET;
      if (frames_.BeforeFirst() || (calls_.count() == 0 && !frames_.AtBoundary())) {
        // Behind TLS it could not be read, and into what is being written nothing may come.
        if (!is_tls_ && goaway_written_ && write_callback_ == nullptr) {
          send(fd_, kNothingServed, sizeof(kNothingServed), MSG_DONTWAIT | MSG_NOSIGNAL);
        }
        error = absl::UnavailableError("the peer has not begun a call");
        // If not, the connection is about to end by itself.
        if (ShutDown(&callback, &read_on)) events_.lingering(arg_);
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

  // Begins the write that has waited.
  void Uncork() {
    const CorkedWrite write = corked_;
    grpc_endpoint_write(inner_, write.slices, write.callback, write.arg,
                        write.max_frame_size);
  }

  // The closure that C-core runs once, when the peer's settings are there or
  // the connection ended without them. It keeps the connection alive.
  grpc_closure* TakeReadyClosure() {
    Reference();
    return &on_ready_;
  }

 private:
  void Init(grpc_closure* closure, grpc_iomgr_cb_func callback) {
    InitClosure(closure, callback, this);
  }

  static Connection* From(grpc_endpoint* endpoint) {
    static_assert(std::is_standard_layout<grpc_endpoint>::value, "");
    return reinterpret_cast<Connection*>(endpoint);
  }

  // What the kernel has of the socket, in bytes, as this request of ioctl(2) says.
  int Left(unsigned long request) const {
    int bytes = 0;
    return ioctl(fd_, request, &bytes) == 0 ? bytes : 0;
  }

  // Up to which place everything that was written has reached the peer's kernel, at the least;
  // and, if the kernel says so, how many bytes have come from there. With `mutex_`.
  uint64_t Acked(uint64_t* received = nullptr) const {
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

  static void Read(grpc_endpoint* endpoint, grpc_slice_buffer* slices,
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

  static void OnRead(void* arg, grpc_error_handle error) {
    Connection* self = static_cast<Connection*>(arg);
    grpc_closure* callback = nullptr;
    bool read_on = false;
    bool finished = false;
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
        const bool draining = self->common_->draining.load(std::memory_order_acquire);
        const bool nothing_left = self->Follow(draining) && error.ok();
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

  // The kernel may have given the peer up, with what had not arrived. A peer that has closed, or
  // reset, has left by itself.
  void NoteLost(const grpc_error_handle& error) {
    intptr_t number = 0;
    if (error.ok() || ended_ ||
        !grpc_error_get_int(error, grpc_core::StatusIntProperty::kErrorNo, &number) ||
        number == ECONNRESET || number == EPIPE) {
      return;
    }
    answers_.Arrived(Acked());
    lost_ = static_cast<uint32_t>(answers_.written());
  }

  // Whether nothing more can come, after a read that has ended like this. A client with
  // which TLS has failed gets a gentle end as well, so that it hears why.
  bool HasEnded(const grpc_error_handle& error) {
    return !error.ok() && (!is_tls_ || touchdown::HasTcpEnded(inner_));
  }

  // Follows the frames that have come in, and while draining takes the acks of
  // pings out. Says whether nothing is left then.
  bool Follow(bool draining) {
    std::string rest;
    bool of_call = false;
    int resets = 0;
    for (size_t i = 0; i < incoming_.count; ++i) {
      const uint8_t* bytes = GRPC_SLICE_START_PTR(incoming_.slices[i]);
      size_t left = GRPC_SLICE_LENGTH(incoming_.slices[i]);
      while (left > 0) {
        const bool was_header = !frames_.InPreface() && frames_.AtHeader();
        const size_t taken = frames_.Take(bytes, left);
        if (was_header && frames_.HeaderComplete()) {
          of_call = of_call || frames_.IsOfCall();
          if (frames_.IsHeaders()) calls_.Begin(frames_.stream());
          if (frames_.IsReset()) {
            ++resets;
            calls_.End(frames_.stream());
          }
        }
        if (draining) Sort(was_header, bytes, taken, &rest);
        bytes += taken;
        left -= taken;
      }
    }
    if (of_call) last_of_call_ = Timestamp::Now();
    if (resets > 0) Count(resets);
    if (!draining) {
      header_delivered_ =
          frames_.HeaderComplete() ? 0 : frames_.header_count();
      return false;
    }
    grpc_slice_buffer_reset_and_unref(&incoming_);
    if (owes_ack_ && frames_.AtBoundary()) {
      owes_ack_ = false;
      AcknowledgeForPeer();
      rest.append(held_);
      held_.clear();
    }
    if (!rest.empty()) Put(&rest, &incoming_);
    if (!held_.empty() && !timer_set_) SetTimer(kHeldAtLeast);
    return incoming_.count == 0;
  }

  // Cuts the connection of a client that resets too many calls.
  void Count(int resets) {
    const Timestamp now = Timestamp::Now();
    const double earned = (now - last_reset_).seconds() * kResetsPerSecond;
    resets_left_ = std::min(kResetsAtOnce, resets_left_ + earned) - resets;
    last_reset_ = now;
    if (resets_left_ >= 0 || is_cut_) return;
    is_cut_ = true;
    gpr_log(GPR_ERROR,
            "closing a connection on which too many calls were reset: %s",
            std::string(grpc_endpoint_get_peer(inner_)).c_str());
    // C-core sees the connection's end when it reads next.
    shutdown(fd_, SHUT_RDWR);
  }

  // Puts bytes of one frame where they belong: to what is held, or to the rest.
  void Sort(bool was_header, const uint8_t* bytes, size_t count,
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

  // Moves bytes into a slice buffer.
  static void Put(std::string* bytes, grpc_slice_buffer* buffer) {
    grpc_slice_buffer_add(
        buffer, grpc_slice_from_copied_buffer(bytes->data(), bytes->size()));
    bytes->clear();
  }

  // What has come in while C-core was not waiting for it.
  void KeepForLater() {
    for (size_t i = 0; i < incoming_.count; ++i) {
      released_.append(
          reinterpret_cast<const char*>(GRPC_SLICE_START_PTR(incoming_.slices[i])),
          GRPC_SLICE_LENGTH(incoming_.slices[i]));
    }
    grpc_slice_buffer_reset_and_unref(&incoming_);
  }

  // Gives C-core the acks that were held back. The callback is to be run, if there is one.
  grpc_closure* DeliverHeld() {
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

  // Acknowledges the ping that was sent last, which may have been acknowledged before.
  void AcknowledgeForPeer() {
    if (ping_count_ < kPingPayload) return;
    held_.append(reinterpret_cast<const char*>(kPingAck), sizeof(kPingAck));
    held_.append(ping_, kPingPayload);
  }

  // Follows the frames in what C-core writes. Returns a callback to be run, if there is one.
  grpc_closure* FollowWritten(const grpc_slice_buffer* slices) {
    bool pinged = false;
    uint64_t place = written_;
    written_ += slices->length;
    for (size_t i = 0; i < slices->count; ++i) {
      const uint8_t* bytes = GRPC_SLICE_START_PTR(slices->slices[i]);
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
          }
        } else if (written_frames_.HeaderComplete()) {
          if (written_frames_.IsEnd()) {
            if (calls_.End(written_frames_.stream())) {
              answers_.Begin(place + written_frames_.payload_left());
            }
          } else if (written_frames_.IsReset()) {
            calls_.End(written_frames_.stream());
          } else if (written_frames_.IsGoaway()) {
            goaway_written_ = true;
          } else if (written_frames_.IsPing()) {
            ping_count_ = 0;
            pinged = true;
          }
        }
        bytes += taken;
        left -= taken;
      }
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

  // A write has ended: what was written is with the kernel. In a drain each is told; before, the next one tells.
  static void OnWritten(void* arg, grpc_error_handle error) {
    Connection* self = static_cast<Connection*>(arg);
    grpc_closure* callback;
    {
      std::lock_guard<std::mutex> lock(self->mutex_);
      callback = std::exchange(self->write_callback_, nullptr);
      if (error.ok()) {
        self->NoteWritten();
      } else {
        self->NoteLost(error);
      }
    }
    ExecCtx::Run(DEBUG_LOCATION, callback, error);
  }

  void NoteWritten() {
    place_ = is_tls_ ? touchdown::Encrypted(inner_) : written_;
    if (is_tcp_) {
      answers_.End(place_, /*are_known=*/!is_tls_);
    } else {
      answers_.EndAtPeer();
    }
    if (goaway_ping_written_ && goaway_place_ == 0) goaway_place_ = place_;
    if (answers_.AreMany()) answers_.Arrived(Acked());
  }

  void SetTimer(Duration time) {
    timer_set_ = true;
    held_for_ += time;
    Reference();
    grpc_timer_init(&timer_, Timestamp::Now() + time, &on_timer_);
  }

  // Lets C-core have the acks, once the connection has been quiet.
  static void OnTimer(void* arg, grpc_error_handle /*error*/) {
    Connection* self = static_cast<Connection*>(arg);
    grpc_closure* callback = nullptr;
    {
      std::lock_guard<std::mutex> lock(self->mutex_);
      self->timer_set_ = false;
      if (!self->shut_down_ && !self->held_.empty()) {
        const Duration quiet = Timestamp::Now() - self->last_of_call_;
        // After a pause of the process nothing may seem to have come for a long time.
        const bool is_quiet = quiet >= kQuiet && self->Left(FIONREAD) == 0;
        if (self->frames_.AtBoundary() && (is_quiet || self->held_for_ >= kHeldAtMost)) {
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

  static void OnDiscard(void* arg, grpc_error_handle /*error*/) {
    static_cast<Connection*>(arg)->Discard();
  }

  void Discard() {
    grpc_slice_buffer_reset_and_unref(&incoming_);
    grpc_endpoint_read(inner_, &incoming_, &on_read_, /*urgent=*/false,
                       /*min_progress_size=*/1);
  }

  // Sends FIN. Returns whether what comes from now on is to be read and dropped; whether that is
  // to be begun by the caller, and which read is to be told of the end. With `mutex_`.
  bool ShutDown(grpc_closure** callback, bool* read_on) {
    shut_down_ = true;
    *callback = std::exchange(callback_, nullptr);
    if (!ended_ && is_tls_) touchdown::SayGoodbye(inner_, fd_);
    const bool linger = !ended_ && shutdown(fd_, SHUT_WR) == 0;
    if (linger && !reading_) reading_ = *read_on = true;
    return linger;
  }

  static void Shutdown(grpc_endpoint* endpoint, grpc_error_handle why) {
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
    {
      std::lock_guard<std::mutex> lock(mutex_);
      finished_ = true;
    }
    events_.closed(arg_, lost_);
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
    Connection* self = From(endpoint);
    grpc_closure* acknowledged;
    {
      std::lock_guard<std::mutex> lock(self->mutex_);
      // C-core begins a write when the one before has ended.
      self->NoteWritten();
      acknowledged = self->FollowWritten(slices);
      if (self->common_->draining.load(std::memory_order_acquire)) {
        self->write_callback_ = callback;
        callback = &self->on_written_;
      }
    }
    if (acknowledged != nullptr) {
      ExecCtx::Run(DEBUG_LOCATION, acknowledged, absl::OkStatus());
    }
    if (t_corked == self->common_.get()) {
      std::lock_guard<std::mutex> lock(self->common_->mutex);
      if (self->common_->epoch.load(std::memory_order_relaxed) - t_epoch < 2) {
        // There is one write at a time, and C-core keeps the endpoint until its
        // callback was run.
        self->corked_ = CorkedWrite{slices, callback, arg, max_frame_size};
        self->common_->corked.push_back(self);
        return;
      }
    }
    grpc_endpoint_write(self->inner_, slices, callback, arg, max_frame_size);
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

  struct CorkedWrite {
    grpc_slice_buffer* slices;
    grpc_closure* callback;
    void* arg;
    int max_frame_size;
  };

  grpc_endpoint base_;  // first, so that `From` holds
  grpc_endpoint* const inner_;
  const bool is_tls_;
  const int fd_;
  const std::shared_ptr<Common> common_;
  const touchdown_connection_events events_;
  void* const arg_;
  // One for C-core and the read that outlives it, one for `on_ready_`, one for
  // `on_timer_`, and those of `touchdown_connection_reference`.
  std::atomic<int> references_{1};
  bool is_tcp_ = false;
  grpc_closure on_read_;
  grpc_closure on_ready_;
  grpc_closure on_discard_;
  grpc_closure on_timer_;
  grpc_closure on_written_;
  grpc_timer timer_;
  // Belongs to the write under way.
  CorkedWrite corked_;

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
  bool finished_ = false;  // the socket is closed, or is about to be

  Frames frames_{/*of_client=*/true};
  OpenCalls calls_;
  uint64_t received_ = 0;
  // When a frame of a call last came in. (`InfPast` cannot be reckoned with.)
  Timestamp last_of_call_ = Timestamp::ProcessEpoch();
  double resets_left_ = kResetsAtOnce;
  Timestamp last_reset_ = Timestamp::ProcessEpoch();
  bool is_cut_ = false;
  // Of an incomplete header, how many bytes C-core has got.
  size_t header_delivered_ = 0;
  bool holding_ = false;  // the frame under way is an ack
  bool timer_set_ = false;
  Duration held_for_ = Duration::Zero();
  bool acknowledged_ = false;  // by the peer: the ping behind GOAWAY
  bool final_ = false;         // the peer is not waited for any more
  bool owes_ack_ = false;      // one in the peer's place, at the end of the frame under way
  std::string held_;      // acks of pings, waiting for the connection to be quiet
  std::string released_;  // what C-core gets when it reads next

  // Of what C-core writes: the write under way, of which C-core hears by
  // `write_callback_` in a drain, and all until its end.
  Frames written_frames_{/*of_client=*/false};
  grpc_closure* write_callback_ = nullptr;
  uint64_t written_ = 0;
  // What the socket has got, and which answers of it may not have arrived.
  uint64_t place_ = 0;
  Answers answers_;
  uint32_t lost_ = 0;  // answers of which the kernel has said that they will not arrive
  char ping_[kPingPayload];  // the payload of the last ping
  size_t ping_count_ = 0;
  bool goaway_written_ = false;
  bool goaway_ping_written_ = false;
  uint64_t goaway_place_ = 0;  // behind that ping, once it is written
};

const grpc_endpoint_vtable Connection::kVtable = {
    Connection::Read,         Connection::Write,
    Connection::AddToPollset, Connection::AddToPollsetSet,
    Connection::DeleteFromPollsetSet, Connection::Shutdown,
    Connection::Destroy,      Connection::Peer,
    Connection::LocalAddress, Connection::Fd,
    Connection::CanTrackError};

// C-core fixes its configuration when it is first used, so this comes earlier,
// while the program is loaded.
const bool kRegistered = [] {
#ifndef TOUCHDOWN_CLIENT
  touchdown::LeaveClientOut();
#endif
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
  return new touchdown_arguments{std::move(value), std::make_shared<Common>()};
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
                                    void* arg,
                                    const touchdown_tls_functions* tls,
                                    touchdown_tls_session* session) {
  grpc_core::ApplicationCallbackExecCtx callback_exec_ctx;
  grpc_core::ExecCtx exec_ctx;
  const grpc_core::ChannelArgs& args = arguments->value;
  grpc_endpoint* inner = grpc_tcp_create_from_fd(
      grpc_fd_create(fd, peer, /*track_err=*/true),
      grpc_event_engine::experimental::ChannelArgsEndpointConfig(args), peer);
  const bool is_tls = session != nullptr;
  if (is_tls) inner = touchdown::NewTlsEndpoint(inner, *tls, session);
  Connection* connection =
      new Connection(inner, is_tls, fd, arguments->common, *events, arg);
  events->opened(arg, reinterpret_cast<touchdown_connection*>(connection));
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

void touchdown_server_send_goaways(grpc_server* server,
                                   const touchdown_arguments* arguments) {
  grpc_core::ApplicationCallbackExecCtx callback_exec_ctx;
  grpc_core::ExecCtx exec_ctx;
  // Before the first GOAWAY, so that no ack gets through.
  arguments->common->draining.store(true, std::memory_order_release);
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
  InitClosure(
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
  t_corked = arguments->common.get();
  t_epoch = t_corked->epoch.load(std::memory_order_relaxed);
}

namespace {
// Begins every write that waits.
void Uncork(Common* common, bool new_epoch) {
  std::vector<Connection*> corked;
  {
    std::lock_guard<std::mutex> lock(common->mutex);
    if (new_epoch) common->epoch.fetch_add(1, std::memory_order_relaxed);
    corked.swap(common->corked);
  }
  if (corked.empty()) return;
  grpc_core::ApplicationCallbackExecCtx callback_exec_ctx;
  grpc_core::ExecCtx exec_ctx;
  for (Connection* connection : corked) connection->Uncork();
}
}  // namespace

void touchdown_uncork(const touchdown_arguments* arguments) {
  t_corked = nullptr;
  Uncork(arguments->common.get(), /*new_epoch=*/false);
}

void touchdown_uncork_old(const touchdown_arguments* arguments) {
  Uncork(arguments->common.get(), /*new_epoch=*/true);
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
