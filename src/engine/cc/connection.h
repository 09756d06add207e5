// A connection of a server, as C-core sees it: an endpoint.

#ifndef TOUCHDOWN_CONNECTION_H
#define TOUCHDOWN_CONNECTION_H

#include <stddef.h>
#include <stdint.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <type_traits>

#include "absl/strings/string_view.h"
#include "answers.h"
#include "corking.h"
#include "frames.h"
#include "open_calls.h"
#include "guard.h"
#include "shim.h"
#include "src/core/lib/gprpp/time.h"
#include "src/core/lib/iomgr/endpoint.h"
#include "src/core/lib/iomgr/error.h"
#include "src/core/lib/iomgr/timer.h"
#include "src/core/lib/transport/transport.h"
#include "turn.h"

namespace touchdown {

// What the connections of a server share. They may outlive the server.
struct ServerConnections {
  // Whether GOAWAY has been sent.
  std::atomic<bool> draining{false};
  // How many calls are open on all of them, and how many may be.
  std::atomic<size_t> open_calls{0};
  std::atomic<size_t> most_calls{SIZE_MAX};
  Corking corking;
  Turns turns;
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
  Connection(grpc_endpoint* inner, const touchdown_newcomer& newcomer,
             std::shared_ptr<ServerConnections> server);

  grpc_endpoint* endpoint() { return &base_; }
  // What reads from the endpoint, and is there as long as it does. Before the first read.
  void SetTransport(grpc_transport* transport) { transport_ = transport; }

  void Reference() { references_.fetch_add(1, std::memory_order_relaxed); }
  void Unreference();

  // See `touchdown_connection_look` and `touchdown_connection_finish`.
  void Look(touchdown_connection_view* view);
  touchdown_finish_result FinishCalls();
  // See `touchdown_connection_send_away`, `touchdown_connection_blame`,
  // `touchdown_connection_pass_span` and `touchdown_connection_rest`.
  bool SendAway();
  void Blame();
  size_t PassSpan(uint32_t least, bool counts, uint8_t spans);
  bool Rest(size_t calls);

  // The closure that C-core runs once, when the peer's settings are there or
  // the connection ended without them. It keeps the connection alive.
  grpc_closure* TakeReadyClosure() {
    Reference();
    return &on_ready_;
  }

 private:
  // Of a ping, in bytes (RFC 9113, 6.7).
  static constexpr size_t kPingPayload = 8;

  static Connection* From(grpc_endpoint* endpoint) {
    static_assert(std::is_standard_layout<grpc_endpoint>::value, "");
    return reinterpret_cast<Connection*>(endpoint);
  }

  // The endpoint, and its gentle end: connection.cc.

  static void Read(grpc_endpoint* endpoint, grpc_slice_buffer* slices,
                   grpc_closure* callback, bool urgent, int min_progress);
  static void OnRead(void* arg, grpc_error_handle error);
  // `incoming_` has come, from the socket or from what has waited.
  void Came(grpc_error_handle error, bool is_new);
  // What has come in while C-core was not waiting for it.
  void KeepForLater();
  void ReadOn(bool urgent, int min_progress);
  // Whether the peer is told to go, or is about to be. With `mutex_`.
  bool IsDraining() const {
    return leaving_ || server_->draining.load(std::memory_order_acquire);
  }
  // A call begins, if this stream is one and there is room; or it ends. Says whether it does. With `mutex_`.
  bool BeginCall(uint32_t stream);
  bool EndCall(uint32_t stream);
  static void OnDiscard(void* arg, grpc_error_handle /*error*/);
  void Discard();
  static void Write(grpc_endpoint* endpoint, grpc_slice_buffer* slices,
                    grpc_closure* callback, void* arg, int max_frame_size);
  // Sends FIN, after a GOAWAY with this error code if it is not 0. Returns whether what comes from now on is to
  // be read and dropped; whether that is to be begun by the caller, and which read is to be told of the end. With
  // `mutex_`.
  bool ShutDown(uint32_t code, grpc_closure** callback, bool* read_on);
  static void Shutdown(grpc_endpoint* endpoint, grpc_error_handle why);
  static void Destroy(grpc_endpoint* endpoint);
  // C-core has let go and no read is under way.
  void Finish();
  static void OnReady(void* arg, grpc_error_handle error);
  static void AddToPollset(grpc_endpoint* endpoint, grpc_pollset* pollset);
  static void AddToPollsetSet(grpc_endpoint* endpoint, grpc_pollset_set* set);
  static void DeleteFromPollsetSet(grpc_endpoint* endpoint,
                                   grpc_pollset_set* set);
  static absl::string_view Peer(grpc_endpoint* endpoint);
  static absl::string_view LocalAddress(grpc_endpoint* endpoint);
  static int Fd(grpc_endpoint* endpoint);
  static bool CanTrackError(grpc_endpoint* endpoint);

  // The end of a connection, for C-core: connection_end.cc. C-core ends all calls of a connection in one go, for which
  // others would wait, of which there may be many. So it is told of an end in turn, and behind the ends of its calls.

  // Whether the end takes long enough to have its turn. With `mutex_`.
  bool EndsInTurn() const { return calls_.open() > server_->turns.OneGo(); }
  // Has this in turn. `end_` is set.
  void EndInTurn();
  void EndSome();
  // What C-core reads as the end of some calls, if it may read that. With `mutex_`.
  std::string ResetSome();

  // What the guard says is done here: connection_guard.cc. All but `Act`, `ComeInTurn`,
  // `TakeWaiting` and `OnAlarm` with `mutex_`.

  // What the guard says of the frame whose header is complete. Says whether it is of a call that does not begin: C-core gets
  // its headers for the stream below.
  touchdown_verdict Judge(grpc_core::Timestamp now, bool* diverts);
  // What is to be done when C-core reads next.
  void Note(touchdown_verdict verdict);
  bool HasNoted() const { return noted_ != TOUCHDOWN_PASS; }
  // What has come behind the first bytes of `incoming_`, so many, waits.
  void LetWait(size_t count);
  // Nothing comes in from now on, or until GOAWAY is written, if that was noted.
  void Hold(touchdown_verdict noted);
  // Does what was noted. C-core reads, so everything that came before has been taken in.
  void Act(touchdown_verdict noted);
  grpc_error_handle WhyGoaway(touchdown_verdict noted);
  // What waits comes in, in turn with what other connections have.
  void ComeInTurn();
  static void OnWaiting(void* arg, grpc_error_handle error);
  void TakeWaiting();
  // For a peer that C-core leaves without a word: the frame; and the code for this end of a connection,
  // or 0 if it is none that the peer has caused.
  std::string Goaway(uint32_t code) const;
  static std::string Reset(uint32_t stream, uint32_t code);
  static uint32_t CodeOf(const grpc_error_handle& why);
  // Headers that have begun must end, and the server's settings be acknowledged, in time.
  void KeepTime(grpc_core::Timestamp now, bool headers_began);
  void SetAlarm();
  void StopAlarm();
  static void OnAlarm(void* arg, grpc_error_handle error);

  // What passes, and how far it has got: connection_traffic.cc. All but `OnWritten` with
  // `mutex_`.

  // What the kernel has of the socket, in bytes, as this request of ioctl(2) says.
  int Left(unsigned long request) const;
  // Up to which place everything that was written has reached the peer's kernel, at the least;
  // and, if the kernel says so, how many bytes have come from there.
  uint64_t Acked(uint64_t* received = nullptr) const;
  // Whether nothing more can come, after a read that has ended like this. A client with
  // which TLS has failed gets a gentle end as well, so that it hears why.
  bool HasEnded(const grpc_error_handle& error);
  // The kernel may have given the peer up, with what had not arrived. A peer that has closed, or
  // reset, has left by itself.
  void NoteLost(const grpc_error_handle& error);
  // Follows the frames that have come in, until there is something to be done about one; what comes behind waits.
  // While draining takes the acks of pings out. Says whether nothing is left for C-core then.
  bool Follow(bool draining);
  // Follows the frames in what C-core writes. Returns a callback to be run, if there is one.
  grpc_closure* FollowWritten(grpc_slice_buffer* slices);
  // Writes into the payload of SETTINGS how many calls may be open.
  void Announce(uint8_t* bytes, size_t count);
  // Follows the number that RST_STREAM and GOAWAY begin with. Returns 1 if that is the end of a call for which the
  // peer is to blame.
  uint32_t FollowNumber(const uint8_t* bytes, size_t count);
  // A write has ended: what was written is with the kernel. In a drain this is called for each;
  // before, the next write notes the end of the last.
  static void OnWritten(void* arg, grpc_error_handle error);
  void NoteWritten();

  // Acks of pings in a drain: connection_drain.cc. All but `OnTimer` with `mutex_`.

  // Puts bytes of one frame where they belong: to what is held, or to the rest.
  void Sort(bool was_header, const uint8_t* bytes, size_t count,
            std::string* rest);
  // Puts what is left in the place of what has come in. Says whether that is nothing.
  bool Replace(std::string* rest);
  // Moves bytes into a slice buffer.
  static void Put(std::string* bytes, grpc_slice_buffer* buffer);
  // Gives C-core the acks that were held back. The callback is to be run, if there is one.
  grpc_closure* DeliverHeld();
  // Acknowledges the ping that was sent last, which may have been acknowledged before.
  void AcknowledgeForPeer();
  void SetTimer(grpc_core::Duration time);
  // Lets C-core have the acks, once the connection has been quiet.
  static void OnTimer(void* arg, grpc_error_handle /*error*/);

  static const grpc_endpoint_vtable kVtable;

  grpc_endpoint base_;  // first, so that `From` holds
  grpc_endpoint* const inner_;
  const bool is_tls_;
  const int fd_;
  const std::shared_ptr<ServerConnections> server_;
  const touchdown_connection_events events_;
  void* const arg_;
  const grpc_core::Duration acknowledge_time_;
  const uint32_t most_calls_;
  grpc_transport* transport_ = nullptr;
  // One for C-core and the read that outlives it, one for `on_ready_`, one each for
  // `on_timer_` and `on_alarm_`, and those of `touchdown_connection_reference`.
  std::atomic<int> references_{1};
  bool is_tcp_ = false;
  grpc_closure on_read_;
  grpc_closure on_ready_;
  grpc_closure on_discard_;
  grpc_closure on_timer_;
  grpc_closure on_written_;
  grpc_closure on_alarm_;
  grpc_closure on_waiting_;
  grpc_timer timer_;
  grpc_timer alarm_;
  Turn turn_;

  // Guards all below but `incoming_`, which belongs to the read under way.
  // `reading_` is true from before a read of `inner_` until its callback, and while something waits for its turn.
  std::mutex mutex_;
  grpc_slice_buffer incoming_;
  grpc_slice_buffer* slices_ = nullptr;
  grpc_closure* callback_ = nullptr;  // C-core's, while it waits for a read
  bool reading_ = false;
  bool ended_ = false;  // the peer closed, or the socket failed
  bool shut_down_ = false;
  bool destroyed_ = false;
  bool finished_ = false;  // the socket is closed, or is about to be

  // How C-core is to hear that the connection ends: a read fails like this, or it is cut.
  enum class End { kNone, kRead, kCut };
  End end_ = End::kNone;
  grpc_error_handle end_error_;
  bool ends_at_boundary_ = false;  // a cut: C-core is not inside a frame, or a block of headers

  Frames frames_{/*of_client=*/true};
  OpenCalls calls_;
  bool leaving_ = false;  // the peer is told to go, whatever becomes of the server
  bool watched_ = false;  // `busy` was said, and nobody has come to rest it since
  // When the last call ended, or the connection began.
  grpc_core::Timestamp idle_since_ = grpc_core::Timestamp::Now();
  uint64_t received_ = 0;
  // When a frame of a call last came in. (`InfPast` cannot be reckoned with.)
  grpc_core::Timestamp last_of_call_ = grpc_core::Timestamp::ProcessEpoch();

  Guard guard_;
  bool looking_ = false;  // the guard is shown what is in the frame under way
  bool diverting_ = false;  // the block of headers under way is of a call that does not begin
  uint32_t refused_ = 0;     // the last call that did not begin because as many were open as may be
  std::string owed_resets_;  // of such calls: to be sent with what C-core writes next
  bool opening_ = true;   // the peer has not acknowledged the server's settings
  bool owes_settings_ack_ = false;  // one in its place, at the end of the frame under way
  touchdown_verdict noted_ = TOUCHDOWN_PASS;  // to be done when C-core reads next
  bool sent_away_ = false;  // GOAWAY is noted, or more
  bool is_blamed_ = false;  // that, or C-core ends the connection for what the peer has sent
  bool is_held_ = false;    // nothing comes in until GOAWAY is with the kernel
  bool goaway_under_way_ = false;  // that GOAWAY is in the write under way
  bool cut_ = false;               // nothing comes in any more
  bool parked_ = false;            // no read is under way before the peer's time is over
  bool drops_ = false;             // that time is over, and what comes is dropped
  size_t dropped_ = 0;             // behind GOAWAY and FIN
  grpc_slice_buffer waiting_;      // what has come, and was not looked at
  // What the alarm may be set for, when, and to what it is set.
  grpc_core::Timestamp acknowledge_by_ = grpc_core::Timestamp::InfFuture();
  grpc_core::Timestamp headers_by_ = grpc_core::Timestamp::InfFuture();
  grpc_core::Timestamp gone_by_ = grpc_core::Timestamp::InfFuture();
  grpc_core::Timestamp alarm_at_ = grpc_core::Timestamp::InfFuture();
  bool alarm_set_ = false;
  // Of an incomplete header, how many bytes C-core has got.
  size_t header_delivered_ = 0;
  bool holding_ = false;  // the frame under way is an ack
  bool timer_set_ = false;
  grpc_core::Duration held_for_ = grpc_core::Duration::Zero();
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
  // Of SETTINGS under way: the number of the setting, and how much has been seen.
  uint16_t setting_ = 0;
  size_t setting_count_ = 0;
  // Of the frame under way: the number that it begins with, and how much of that has been seen.
  uint32_t number_ = 0;
  int number_count_ = 0;
  char ping_[kPingPayload];  // the payload of the last ping
  size_t ping_count_ = 0;
  bool goaway_written_ = false;
  bool goaway_ping_written_ = false;
  uint64_t goaway_place_ = 0;  // behind that ping, once it is written
};

}  // namespace touchdown

#endif  // TOUCHDOWN_CONNECTION_H
