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
#include "reset_limit.h"
#include "shim.h"
#include "src/core/lib/gprpp/time.h"
#include "src/core/lib/iomgr/endpoint.h"
#include "src/core/lib/iomgr/error.h"
#include "src/core/lib/iomgr/timer.h"
#include "src/core/lib/transport/transport.h"

namespace touchdown {

// What the connections of a server share. They may outlive the server.
struct ServerConnections {
  // Whether GOAWAY has been sent.
  std::atomic<bool> draining{false};
  // How many calls are open on all of them, and how many may be.
  std::atomic<size_t> open_calls{0};
  std::atomic<size_t> most_calls{SIZE_MAX};
  Corking corking;
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
             std::shared_ptr<ServerConnections> server,
             const touchdown_connection_events& events, void* arg);

  grpc_endpoint* endpoint() { return &base_; }

  void Reference() { references_.fetch_add(1, std::memory_order_relaxed); }
  void Unreference();

  // See `touchdown_connection_look` and `touchdown_connection_finish`.
  void Look(touchdown_connection_view* view);
  touchdown_finish_result FinishCalls();
  // See `touchdown_connection_send_away`, `touchdown_connection_pass_span` and
  // `touchdown_connection_rest`.
  bool SendAway();
  size_t PassSpan(uint32_t least, bool counts, uint8_t spans);
  bool Rest(size_t calls);
  // C-core's side of it, which is set before anything is read.
  void SetTransport(grpc_transport* transport) { transport_ = transport; }

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
  // What has come in while C-core was not waiting for it.
  void KeepForLater();
  // Whether the peer is told to go, or is about to be. With `mutex_`.
  bool IsDraining() const {
    return leaving_ || server_->draining.load(std::memory_order_acquire);
  }
  // A call begins, or ends, if this stream is one. Says whether it was open. With `mutex_`.
  void BeginCall(uint32_t stream);
  bool EndCall(uint32_t stream);
  // Ends the connection of a client that resets too many calls. Returns the client's address. With
  // `mutex_`.
  std::string Cut();
  static void OnDiscard(void* arg, grpc_error_handle /*error*/);
  void Discard();
  static void Write(grpc_endpoint* endpoint, grpc_slice_buffer* slices,
                    grpc_closure* callback, void* arg, int max_frame_size);
  // Sends FIN. Returns whether what comes from now on is to be read and dropped; whether that is
  // to be begun by the caller, and which read is to be told of the end. With `mutex_`.
  bool ShutDown(grpc_closure** callback, bool* read_on);
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
  // Follows the frames that have come in, and while draining takes the acks of
  // pings out. Says whether nothing is left then.
  bool Follow(bool draining);
  // Follows the frames in what C-core writes. Returns a callback to be run, if there is one.
  grpc_closure* FollowWritten(const grpc_slice_buffer* slices);
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
  grpc_transport* transport_ = nullptr;

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
  bool leaving_ = false;  // the peer is told to go, whatever becomes of the server
  bool watched_ = false;  // `busy` was said, and nobody has come to rest it since
  // When the last call ended, or the connection began.
  grpc_core::Timestamp idle_since_ = grpc_core::Timestamp::Now();
  uint64_t received_ = 0;
  // When a frame of a call last came in. (`InfPast` cannot be reckoned with.)
  grpc_core::Timestamp last_of_call_ = grpc_core::Timestamp::ProcessEpoch();
  ResetLimit resets_;
  bool is_to_be_cut_ = false;  // `resets_` has been exceeded, and nothing done about it yet
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
  char ping_[kPingPayload];  // the payload of the last ping
  size_t ping_count_ = 0;
  bool goaway_written_ = false;
  bool goaway_ping_written_ = false;
  uint64_t goaway_place_ = 0;  // behind that ping, once it is written
};

}  // namespace touchdown

#endif  // TOUCHDOWN_CONNECTION_H
