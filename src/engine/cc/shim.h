// What gRPC C-core can do and its C API does not offer: the process keeps its
// listener and hands accepted sockets over, GOAWAY goes out without the rest
// of a shutdown, and a connection's end can be seen and made gentle.

#ifndef TOUCHDOWN_SHIM_H
#define TOUCHDOWN_SHIM_H

#include <grpc/grpc.h>
#include <grpc/slice_buffer.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

// What happens to a connection. Each is called on a thread of C-core's
// choosing, must not block, and must not call back into C-core. `arg` belongs
// to the caller and is passed for the last time to `closed`.
typedef struct touchdown_connection touchdown_connection;

typedef struct touchdown_connection_events {
  // The connection is there. It stays valid until `closed` is called, and longer for
  // the owner of a reference.
  void (*opened)(void* arg, touchdown_connection* connection);
  // The peer has sent its HTTP/2 settings, so it speaks HTTP/2.
  void (*ready)(void* arg);
  // The peer is sent GOAWAY with this error code (RFC 9113, 7) and this text. If it is cut, the
  // connection ends at once; otherwise with the calls that have begun. Called once for each.
  void (*sent_away)(void* arg, uint32_t code, const char* why, int is_cut);
  // A call has begun on it, the first since the beginning or since `touchdown_connection_rest`
  // has said 1.
  void (*busy)(void* arg);
  // With a call that has begun on it more are open than `touchdown_arguments_limit_calls` allows.
  void (*crowded)(void* arg);
  // C-core is done with the connection. Everything was written, FIN was sent,
  // and what the peer still sends is read and dropped until the peer closes.
  // To end the wait, shut the socket down.
  void (*lingering)(void* arg);
  // The socket is about to be closed. So many answers were given to the kernel that will not
  // arrive: it has given the peer up.
  void (*closed)(void* arg, uint32_t lost);
} touchdown_connection_events;

// What is known of a connection at one moment.
typedef struct touchdown_connection_view {
  // The bytes that have been read of what the peer has sent; behind TLS, of what it
  // means.
  uint64_t received;
  // The bytes that have reached the peer's kernel; for a unix socket, those that the peer has
  // read.
  uint64_t arrived;
  // The calls that the peer has begun.
  uint64_t calls;
  // Those of them of which neither side has sent the end.
  uint32_t open;
  // The calls whose end was given to the kernel, and has not reached the peer's. For a
  // unix socket there are none: what is written is there.
  uint32_t undelivered;
  // The calls whose end is in the write that is under way, and has not reached the peer's
  // kernel; and those of which it has, though the write has not ended.
  uint32_t writing;
  uint32_t arrived_of_write;
  // The bytes that have come and were not read yet.
  int32_t unread;
  // The bytes, and FIN, that the peer's kernel has not acknowledged. For a unix socket there are
  // none, as above.
  int32_t unacknowledged;
  // The bytes that the kernel has to send, or that the reader of a unix socket has not read; of
  // the latter more than there are, since the kernel counts what it needs to keep them.
  int32_t queued;
  // For how many milliseconds no call has been open, by a clock that goes on while the process
  // stands still; 0 if there is one.
  uint64_t idle;
  // Whether a part of a frame has come, or of a TLS record, and the rest not yet.
  uint8_t mid_frame;
  // Whether the peer has acknowledged the ping behind GOAWAY.
  uint8_t acknowledged;
  // Whether that ping has reached the peer's kernel.
  uint8_t ping_arrived;
  // Whether the connection is over on both sides: nothing can come any more. Somebody may hold
  // on to a call of it still.
  uint8_t over;
  // Whether it is closed, and nothing else of this is true.
  uint8_t gone;
} touchdown_connection_view;

// Another reference, to be had while the connection is valid; and its end. A thread may
// let go of one at any time.
void touchdown_connection_reference(touchdown_connection* connection);
void touchdown_connection_release(touchdown_connection* connection);

// Makes system calls, but does not block.
void touchdown_connection_look(touchdown_connection* connection,
                               touchdown_connection_view* view);

typedef enum {
  // The final GOAWAY, which names the last call that is served, is on its way; with
  // the last call the connection ends.
  TOUCHDOWN_FINISHED = 0,
  // Something has come that was not read yet. It decides which call is the last.
  TOUCHDOWN_NOT_YET = 1,
  // A frame has come in part: C-core can be told nothing before it is whole.
  TOUCHDOWN_MID_FRAME = 2,
} touchdown_finish_result;

// Ends the wait for the peer to acknowledge GOAWAY, after
// `touchdown_server_send_goaways`. A peer that has not begun to speak HTTP/2, or has begun
// no call and stands in the middle of a frame, is told that none of its calls is served, if
// it can be told, and gets FIN.
touchdown_finish_result touchdown_connection_finish(touchdown_connection* connection);

// Sends the graceful, two-step GOAWAY on this connection alone, as
// `touchdown_server_send_goaways` does on all. Returns 0, and has done nothing, if C-core is at work on
// what has come: it is to be tried again.
int touchdown_connection_send_away(touchdown_connection* connection);

// A call was refused because its headers cannot be read: that counts as one that the server resets for what the peer
// has sent.
void touchdown_connection_blame(touchdown_connection* connection);

// A span of time is over. A call stood still for it if fewer bytes than `least` of messages have passed,
// either way; `counts` is 0 for a span in which nothing could pass. Returns how many open calls have stood
// still for `spans` or more, one after the other.
size_t touchdown_connection_pass_span(touchdown_connection* connection,
                                      uint32_t least, int counts, uint8_t spans);

// If no more than so many calls are open, and nothing waits to be sent, has the next call that begins say
// `busy` again, and returns 1.
int touchdown_connection_rest(touchdown_connection* connection, uint32_t calls);

// The channel arguments of a server, in the form that a connection needs.
typedef struct touchdown_arguments touchdown_arguments;

touchdown_arguments* touchdown_arguments_create(const grpc_channel_args* args);
void touchdown_arguments_destroy(touchdown_arguments* arguments);

// From now on this tag comes from the queue when a round of calls is over (turn.h), or a connection may have its turn in the
// next; until there are no turns any more, which is to be said before the queue is destroyed.
void touchdown_turns_begin(const touchdown_arguments* arguments,
                           grpc_completion_queue* queue, void* tag);
void touchdown_turns_end(const touchdown_arguments* arguments);
// The tag has come: a round begins.
void touchdown_turns_take(const touchdown_arguments* arguments);

// Sets how many calls may be open on all connections together before `crowded` is said; and how many are.
void touchdown_arguments_limit_calls(const touchdown_arguments* arguments, size_t calls);
size_t touchdown_open_calls(const touchdown_arguments* arguments);

// The TLS of one connection.
typedef struct touchdown_tls_session touchdown_tls_session;

typedef enum {
  TOUCHDOWN_TLS_HANDSHAKE = 0,
  TOUCHDOWN_TLS_OPEN = 1,
  // The peer has said that nothing more will come (close_notify).
  TOUCHDOWN_TLS_CLOSED = 2,
  // Nothing is taken in any more. There may be an alert to send.
  TOUCHDOWN_TLS_FAILED = 3,
} touchdown_tls_state;

// What a session can do. None of it blocks or calls back into C-core's connection, and there
// is one call at a time. The session is passed for the last time to `destroy`.
typedef struct touchdown_tls_functions {
  touchdown_tls_state (*state)(const touchdown_tls_session* session);
  // Takes in what came from the peer, or the beginning of it, and returns how many
  // bytes: at least one, unless the session has failed. What it decrypts is to be
  // fetched before the next call.
  size_t (*take_in)(touchdown_tls_session* session, const uint8_t* bytes,
                    size_t count);
  // Moves decrypted bytes to `room`, and returns how many.
  size_t (*take_decrypted)(touchdown_tls_session* session, uint8_t* room,
                           size_t size);
  // Encrypts the beginning of what lies in these pieces, and returns how many bytes. In the states
  // OPEN and CLOSED.
  size_t (*encrypt)(touchdown_tls_session* session, const struct iovec* pieces,
                    size_t count);
  // Adds what is to be sent to the peer.
  void (*take_out)(touchdown_tls_session* session, grpc_slice_buffer* out);
  // Ends the own side: adds close_notify to what is to be sent.
  void (*close)(touchdown_tls_session* session);
  // The connection has ended during the handshake.
  void (*ended)(touchdown_tls_session* session);
  void (*destroy)(touchdown_tls_session* session);
} touchdown_tls_functions;

// Who judges what the peer of one connection sends: the policy is Rust's (guard/mod.rs).
typedef struct touchdown_guard touchdown_guard;

typedef enum {
  TOUCHDOWN_PASS = 0,
  // As `PASS`, and what is in the frame is to be shown.
  TOUCHDOWN_LOOK = 1,
  // As `PASS`, and C-core is to have its own settings acknowledged behind the frame.
  TOUCHDOWN_OPEN = 2,
  // The frame, which is only a header, is not for C-core.
  TOUCHDOWN_SWALLOW = 3,
  // As `PASS`, but C-core gets the frame for the stream below, which is nobody's: it counts what has come, and
  // drops it.
  TOUCHDOWN_DIVERT = 4,
  // GOAWAY as `fault` says; the calls that have begun go on, others do not begin.
  TOUCHDOWN_SEND_AWAY = 5,
  // GOAWAY as `fault` says, and the end. The guard is not asked any more.
  TOUCHDOWN_CUT = 6,
} touchdown_verdict;

// What a guard can do. None of it blocks or calls back, and there is one call at a time. Times
// are in milliseconds. The texts stay as they are until the next call of another function. The guard is
// passed for the last time to `destroy`.
typedef struct touchdown_guard_functions {
  // A frame begins. `head` has the first eight bytes of its header, as a number in network order. Of DATA and HEADERS it
  // is said whether the stream is that of a call which neither side has reset, and whose end the server has not sent. Of
  // HEADERS that come first, it is so unless as many calls are open as may be.
  touchdown_verdict (*begins)(touchdown_guard* guard, uint64_t head,
                              uint32_t stream, int is_open, uint64_t now);
  // More of what is in the frame, after `LOOK`. C-core gets the bytes as they are afterwards.
  touchdown_verdict (*goes_on)(touchdown_guard* guard, uint8_t* bytes,
                               size_t count);
  // The server sends so many frames of calls, with so many bytes of DATA, and resets so many calls for what
  // the peer has sent.
  touchdown_verdict (*written)(touchdown_guard* guard, uint32_t frames,
                               uint64_t data, uint32_t resets, uint64_t now);
  // The server has sent the end of the call.
  void (*ended)(touchdown_guard* guard, uint32_t stream);
  // Headers that have begun to come do not end; or the peer does not acknowledge the server's settings.
  touchdown_verdict (*overdue)(touchdown_guard* guard, int are_headers);
  const char* (*fault)(touchdown_guard* guard, uint32_t* code);
  void (*destroy)(touchdown_guard* guard);
} touchdown_guard_functions;

// What a connection is made with.
typedef struct touchdown_newcomer {
  // A connected, non-blocking stream socket, which the server owns from now on.
  int fd;
  // The address given out for its calls. It is copied.
  const char* peer;
  const touchdown_connection_events* events;
  void* arg;
  // The guard is given away.
  const touchdown_guard_functions* guard_functions;
  touchdown_guard* guard;
  // How long the peer may take to acknowledge the server's settings, in milliseconds.
  uint32_t acknowledge_ms;
  // How many calls the client may have open.
  uint32_t most_calls;
  // With a session, which is given away, it is HTTP/2 over TLS. Without, both are null.
  const touchdown_tls_functions* tls;
  touchdown_tls_session* session;
} touchdown_newcomer;

// Serves HTTP/2 on a connection. Returns 0 if C-core refused it; `closed` is called in either case, possibly
// before this function returns.
int touchdown_server_add_connection(grpc_server* server,
                                    grpc_completion_queue* queue,
                                    const touchdown_arguments* arguments,
                                    const touchdown_newcomer* newcomer);

// Sends the graceful, two-step GOAWAY on every connection. Calls that are
// already on the wire are still served, and so is everything else. A connection
// ends by itself once its client has acknowledged that and its last call is over; until
// when that is waited for, nobody but the caller says (`touchdown_connection_finish`).
void touchdown_server_send_goaways(grpc_server* server,
                                   const touchdown_arguments* arguments);

// Where the end of an operation on a call is told, one at a time.
typedef struct touchdown_completion touchdown_completion;

touchdown_completion* touchdown_completion_create(void);
void touchdown_completion_destroy(touchdown_completion* completion);

// As `grpc_call_start_batch`, but instead of an event of the queue there is a
// call of `done`, once: on this thread before this returns, if the operations have
// ended by then, or on any thread of C-core's. It must take no lock that is held while
// this function is called.
grpc_call_error touchdown_call_start_batch(grpc_call* call, const grpc_op* ops,
                                           size_t count,
                                           touchdown_completion* completion,
                                           void (*done)(void* arg, int succeeded),
                                           void* arg);

// Why the headers of a request are no call's.
typedef enum {
  TOUCHDOWN_NO_FAULT = 0,
  // Another HTTP method than POST.
  TOUCHDOWN_FAULT_METHOD = 1,
  // Another content-type than gRPC's, or none. The response has the HTTP status 415.
  TOUCHDOWN_FAULT_CONTENT_TYPE = 2,
  // A grpc-timeout that is none.
  TOUCHDOWN_FAULT_TIMEOUT = 3,
  // A grpc-encoding that is not known.
  TOUCHDOWN_FAULT_ENCODING = 4,
  // One of its headers cannot be read.
  TOUCHDOWN_FAULT_HEADER = 5,
} touchdown_fault;

// The fault of a call of a server. A call that has one comes as a call of no method, and its path has one more byte
// before its beginning.
touchdown_fault touchdown_call_fault(grpc_call* call);

// The requests of this call of a server are a stream. To be called before the first of them is received: otherwise a
// request counts as none if something has come behind it.
void touchdown_call_takes_a_stream(grpc_call* call);

// What stands for a message that is none; see messages.h. It lies in one slice, which is one of these bytes:
// its flag byte is neither 0 nor 1; it is compressed, and nobody has said how; the request has ended in its midst;
// something is behind it in a call that has one request.
extern const uint8_t touchdown_flaws[4];

// From now on writes that the calling thread begins wait, and what else is to be
// written on their connections joins them: replies that are ready together go
// out together, for a few system calls less.
void touchdown_cork(const touchdown_arguments* arguments);

// Ends that for the calling thread, and begins every write of the server's that
// waits, whichever thread it was that corked it.
void touchdown_uncork(const touchdown_arguments* arguments);

// Begins every write that waits, and ends the waiting for every thread that has
// corked before the last call of this.
void touchdown_uncork_old(const touchdown_arguments* arguments);

// Ends the thread that C-core has started for timers, if it has nothing to do: see
// threads.cc. To be called after `grpc_init`, any number of times.
void touchdown_end_spare_threads(void);

// Lets a new thread take the place of the one that does C-core's work, if that one sleeps: with
// a thread ends what malloc keeps for it. May be called at any time.
void touchdown_renew_threads(void);

// Does the input and output that is due, of one socket at each look, without waiting for any. A thread that asks the queue does so
// only if nothing is in it.
void touchdown_queue_poll(grpc_completion_queue* queue, int looks);

// Puts an event with this tag on the queue, for whichever thread polls it. Returns 0,
// and puts nothing there, if the queue is shut down.
int touchdown_queue_post(grpc_completion_queue* queue, void* tag);

#ifdef __cplusplus
}
#endif

#endif  // TOUCHDOWN_SHIM_H
