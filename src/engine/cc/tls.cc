// See the head of shim.cc for what may be used here, and what not.

#include "tls.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <string>
#include <type_traits>

#include <grpc/slice_buffer.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "closure.h"
#include "core_thread.h"
#include "src/core/lib/gprpp/debug_location.h"
#include "src/core/lib/iomgr/error.h"
#include "src/core/lib/iomgr/exec_ctx.h"
#include "tls_records.h"
#include "turn.h"

namespace touchdown {
namespace {

using grpc_core::ExecCtx;

// How much is encrypted before it is written: four records of the largest size. A client that does
// not read costs no more than this beside what C-core holds for it.
constexpr size_t kEncryptedAtOnce = 64 << 10;

// How many slices are encrypted with one call.
constexpr size_t kMostPieces = 64;

// Lets C-core have the plaintext of what comes in on a TCP endpoint, and sends what it writes
// encrypted. The session, which is Rust's, does the cryptography; this moves the bytes:
//
// - Until the handshake is over, what C-core writes waits here. The handshake needs
//   nothing of C-core's but a read under way, and one always is.
// - The plaintext is put where the ciphertext was: that memory is C-core's own, and counts against
//   the server's limit until C-core has let go of it.
// - There is one write of the TCP endpoint at a time: of what C-core writes, a part, or of what the
//   session has to say by itself.
class TlsEndpoint {
 public:
  TlsEndpoint(grpc_endpoint* tcp, const touchdown_tls_functions& functions,
              touchdown_tls_session* session)
      : tcp_(tcp), functions_(functions), session_(session) {
    base_.vtable = &kVtable;
    grpc_slice_buffer_init(&incoming_);
    grpc_slice_buffer_init(&room_);
    grpc_slice_buffer_init(&plaintext_);
    grpc_slice_buffer_init(&outgoing_);
    InitClosure(&on_read_, OnRead, this);
    InitClosure(&on_read_on_, OnReadOn, this);
    InitClosure(&on_write_, OnWrite, this);
    InitClosure(&on_write_on_, OnWriteOn, this);
  }

  static TlsEndpoint* From(grpc_endpoint* endpoint) {
    static_assert(std::is_standard_layout<grpc_endpoint>::value, "");
    return reinterpret_cast<TlsEndpoint*>(endpoint);
  }

  grpc_endpoint* endpoint() { return &base_; }

  bool HasTcpEnded() {
    std::lock_guard<std::mutex> lock(mutex_);
    return tcp_ended_ || shut_down_;
  }

  bool IsInRecord() {
    std::lock_guard<std::mutex> lock(mutex_);
    return State() == TOUCHDOWN_TLS_OPEN && records_.Incomplete() > 0;
  }

  uint64_t Encrypted() {
    std::lock_guard<std::mutex> lock(mutex_);
    return encrypted_;
  }

  void SayGoodbye(int fd, const std::string& last_words) {
    std::lock_guard<std::mutex> lock(mutex_);
    discarding_ = true;
    if (writing_ || write_callback_ != nullptr || !MayEncrypt()) return;
    if (!last_words.empty()) {
      const iovec piece = {const_cast<char*>(last_words.data()), last_words.size()};
      functions_.encrypt(session_, &piece, 1);
    }
    functions_.close(session_);
    functions_.take_out(session_, &outgoing_);
    for (size_t i = 0; i < outgoing_.count; ++i) {
      // If it does not fit into the socket's buffer, the peer gets along without.
      send(fd, GRPC_SLICE_START_PTR(outgoing_.slices[i]),
           GRPC_SLICE_LENGTH(outgoing_.slices[i]), MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    grpc_slice_buffer_reset_and_unref(&outgoing_);
  }

 private:
  // All that are named like this need `mutex_`, unless they are static.

  touchdown_tls_state State() { return functions_.state(session_); }
  bool MayEncrypt() {
    return State() == TOUCHDOWN_TLS_OPEN || State() == TOUCHDOWN_TLS_CLOSED;
  }
  bool MayDecrypt() {
    return State() == TOUCHDOWN_TLS_HANDSHAKE || State() == TOUCHDOWN_TLS_OPEN;
  }

  static void Read(grpc_endpoint* endpoint, grpc_slice_buffer* slices,
                   grpc_closure* callback, bool urgent, int /*min_progress*/) {
    TlsEndpoint* self = From(endpoint);
    grpc_slice_buffer_reset_and_unref(slices);
    {
      std::lock_guard<std::mutex> lock(self->mutex_);
      if (self->tcp_ended_ || (!self->discarding_ && !self->MayDecrypt())) {
        ExecCtx::Run(DEBUG_LOCATION, callback, self->EndOfReads());
        return;
      }
      self->read_slices_ = slices;
      self->read_callback_ = callback;
      self->Reference();
    }
    self->turn_.Read(self->tcp_, &self->incoming_, &self->on_read_, urgent,
                     /*min_progress=*/1);
  }

  grpc_error_handle EndOfReads() {
    return State() == TOUCHDOWN_TLS_FAILED
               ? absl::UnavailableError("TLS has failed")
               : absl::UnavailableError("the peer has closed the connection");
  }

  static void OnRead(void* arg, grpc_error_handle error) {
    TlsEndpoint* self = static_cast<TlsEndpoint*>(arg);
    self->turn_.Came(self->incoming_.length);
    if (error.ok() && !CoreThread::IsThis()) {
      bool is_handshake;
      {
        std::lock_guard<std::mutex> lock(self->mutex_);
        is_handshake = self->State() == TOUCHDOWN_TLS_HANDSHAKE;
      }
      // A signature takes a millisecond, or five, and there may be many; this thread polls for everybody.
      if (is_handshake && RunInTurn([self] { OnCame(self, absl::OkStatus()); })) return;
    }
    OnCame(self, error);
  }

  static void OnCame(TlsEndpoint* self, grpc_error_handle error) {
    std::unique_lock<std::mutex> lock(self->mutex_);
    if (!error.ok()) {
      self->tcp_ended_ = true;
      if (self->State() == TOUCHDOWN_TLS_HANDSHAKE) {
        self->functions_.ended(self->session_);
        self->FinishWrite(error);
      }
    } else if (self->discarding_) {
      grpc_slice_buffer_reset_and_unref(&self->incoming_);
    } else {
      self->Decrypt();
      if (self->State() == TOUCHDOWN_TLS_FAILED) {
        self->FinishWrite(self->EndOfReads());
      }
      // What came before the end comes first.
      if (!self->MayDecrypt() && self->plaintext_.length == 0) {
        error = self->EndOfReads();
      }
    }
    const bool read_on =
        error.ok() && !self->discarding_ && self->plaintext_.length == 0;
    if (read_on) {
      // Not at once: it could end at once as well, and again, and use up the stack.
      ExecCtx::Run(DEBUG_LOCATION, &self->on_read_on_, absl::OkStatus());
    } else {
      grpc_slice_buffer_swap(self->read_slices_, &self->plaintext_);
      grpc_closure* callback = self->read_callback_;
      self->read_callback_ = nullptr;
      ExecCtx::Run(DEBUG_LOCATION, callback, error);
    }
    // An alert is on its way before C-core hears of the failure, and closes.
    self->WriteOn(&lock);
    if (!read_on) self->Unreference();
  }

  static void OnReadOn(void* arg, grpc_error_handle /*error*/) {
    TlsEndpoint* self = static_cast<TlsEndpoint*>(arg);
    self->turn_.Read(self->tcp_, &self->incoming_, &self->on_read_,
                     /*urgent=*/false, /*min_progress=*/1);
  }

  // Moves `incoming_`, decrypted, to `plaintext_`.
  void Decrypt() {
    while (incoming_.count > 0 && MayDecrypt()) {
      grpc_slice slice = grpc_slice_buffer_take_first(&incoming_);
      const uint8_t* bytes = GRPC_SLICE_START_PTR(slice);
      size_t left = GRPC_SLICE_LENGTH(slice);
      // Of its bytes only those are overwritten that have been taken in: no plaintext
      // is longer than its ciphertext.
      grpc_slice_buffer_add(&room_, slice);
      while (left > 0 && MayDecrypt()) {
        const size_t taken = functions_.take_in(session_, bytes, left);
        records_.Follow(bytes, taken);
        bytes += taken;
        left -= taken;
        MoveDecrypted();
      }
    }
    grpc_slice_buffer_reset_and_unref(&incoming_);
    KeepRoom(MayDecrypt() ? records_.Incomplete() : 0);
  }

  void MoveDecrypted() {
    for (;;) {
      if (room_.count == 0) {
        grpc_slice room = grpc_slice_malloc(kLittleRoom);
        memset(GRPC_SLICE_START_PTR(room), 0, kLittleRoom);
        grpc_slice_buffer_add(&room_, room);
      }
      grpc_slice slice = grpc_slice_buffer_take_first(&room_);
      const size_t count = functions_.take_decrypted(
          session_, GRPC_SLICE_START_PTR(slice), GRPC_SLICE_LENGTH(slice));
      if (count == 0) {
        grpc_slice_buffer_undo_take_first(&room_, slice);
        return;
      }
      grpc_slice_buffer_add(&plaintext_, grpc_slice_split_head(&slice, count));
      if (GRPC_SLICE_LENGTH(slice) > 0) {
        grpc_slice_buffer_undo_take_first(&room_, slice);
      } else {
        grpc_slice_unref(slice);
      }
    }
  }

  // Lets go of all room but so many bytes.
  void KeepRoom(size_t count) {
    if (count == 0) {
      grpc_slice_buffer_reset_and_unref(&room_);
    } else if (room_.length > count) {
      Drop(&room_, room_.length - count);
    }
  }

  static void Drop(grpc_slice_buffer* buffer, size_t count) {
    while (count > 0) {
      grpc_slice slice = grpc_slice_buffer_take_first(buffer);
      const size_t length = GRPC_SLICE_LENGTH(slice);
      if (length > count) {
        grpc_slice rest = grpc_slice_split_tail(&slice, count);
        grpc_slice_buffer_undo_take_first(buffer, rest);
      }
      grpc_slice_unref(slice);
      count -= std::min(count, length);
    }
  }

  static void Write(grpc_endpoint* endpoint, grpc_slice_buffer* slices,
                    grpc_closure* callback, void* /*arg*/, int max_frame_size) {
    TlsEndpoint* self = From(endpoint);
    std::unique_lock<std::mutex> lock(self->mutex_);
    if (self->shut_down_ || !self->write_error_.ok() ||
        self->State() == TOUCHDOWN_TLS_FAILED) {
      ExecCtx::Run(DEBUG_LOCATION, callback,
                   absl::UnavailableError("the connection has ended"));
      return;
    }
    self->write_slices_ = slices;
    self->write_callback_ = callback;
    self->max_frame_size_ = max_frame_size;
    self->WriteOn(&lock);
  }

  // Begins the next write of the TCP endpoint, if none is under way and there is something to
  // write. Releases the lock then.
  void WriteOn(std::unique_lock<std::mutex>* lock) {
    if (writing_ || !write_error_.ok()) return;
    if (write_callback_ != nullptr && MayEncrypt()) Encrypt();
    functions_.take_out(session_, &outgoing_);
    if (outgoing_.length > 0) {
      writing_ = true;
      encrypted_ += outgoing_.length;
      Reference();
      lock->unlock();
      grpc_endpoint_write(tcp_, &outgoing_, &on_write_, nullptr,
                          max_frame_size_);
    } else if (write_callback_ != nullptr && write_slices_->length == 0) {
      FinishWrite(absl::OkStatus());
    }
  }

  // Takes what C-core writes, but no more than is to be written at once.
  void Encrypt() {
    size_t count = 0;
    while (write_slices_->count > 0 && count < kEncryptedAtOnce) {
      iovec pieces[kMostPieces];
      const size_t most = std::min(write_slices_->count, kMostPieces);
      for (size_t i = 0; i < most; ++i) {
        pieces[i].iov_base = GRPC_SLICE_START_PTR(write_slices_->slices[i]);
        pieces[i].iov_len = GRPC_SLICE_LENGTH(write_slices_->slices[i]);
      }
      const size_t taken = functions_.encrypt(session_, pieces, most);
      if (taken == 0) return;
      Drop(write_slices_, taken);
      count += taken;
    }
  }

  static void OnWrite(void* arg, grpc_error_handle error) {
    TlsEndpoint* self = static_cast<TlsEndpoint*>(arg);
    {
      std::lock_guard<std::mutex> lock(self->mutex_);
      self->writing_ = false;
      grpc_slice_buffer_reset_and_unref(&self->outgoing_);
      if (!error.ok()) {
        self->write_error_ = error;
        self->FinishWrite(error);
      }
    }
    // Not at once, as in `OnRead`.
    ExecCtx::Run(DEBUG_LOCATION, &self->on_write_on_, absl::OkStatus());
  }

  static void OnWriteOn(void* arg, grpc_error_handle /*error*/) {
    TlsEndpoint* self = static_cast<TlsEndpoint*>(arg);
    {
      std::unique_lock<std::mutex> lock(self->mutex_);
      self->WriteOn(&lock);
    }
    self->Unreference();
  }

  // Tells C-core of the end of what it writes, if it writes.
  void FinishWrite(grpc_error_handle error) {
    if (write_callback_ == nullptr) return;
    ExecCtx::Run(DEBUG_LOCATION, write_callback_, error);
    write_callback_ = nullptr;
    write_slices_ = nullptr;
  }

  static void Shutdown(grpc_endpoint* endpoint, grpc_error_handle why) {
    TlsEndpoint* self = From(endpoint);
    {
      std::lock_guard<std::mutex> lock(self->mutex_);
      self->shut_down_ = true;
      // No write of the TCP endpoint would end this one.
      if (!self->writing_) self->FinishWrite(why);
    }
    grpc_endpoint_shutdown(self->tcp_, why);
  }

  static void Destroy(grpc_endpoint* endpoint) {
    TlsEndpoint* self = From(endpoint);
    // A write of the session's own may be under way, and ends so.
    grpc_endpoint_shutdown(self->tcp_,
                           absl::UnavailableError("connection destroyed"));
    self->Unreference();
  }

  void Reference() { references_.fetch_add(1, std::memory_order_relaxed); }

  void Unreference() {
    if (references_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    grpc_endpoint_destroy(tcp_);
    functions_.destroy(session_);
    grpc_slice_buffer_destroy(&incoming_);
    grpc_slice_buffer_destroy(&room_);
    grpc_slice_buffer_destroy(&plaintext_);
    grpc_slice_buffer_destroy(&outgoing_);
    delete this;
  }

  static void AddToPollset(grpc_endpoint* endpoint, grpc_pollset* pollset) {
    grpc_endpoint_add_to_pollset(From(endpoint)->tcp_, pollset);
  }
  static void AddToPollsetSet(grpc_endpoint* endpoint, grpc_pollset_set* set) {
    grpc_endpoint_add_to_pollset_set(From(endpoint)->tcp_, set);
  }
  static void DeleteFromPollsetSet(grpc_endpoint* endpoint,
                                   grpc_pollset_set* set) {
    grpc_endpoint_delete_from_pollset_set(From(endpoint)->tcp_, set);
  }
  static absl::string_view Peer(grpc_endpoint* endpoint) {
    return grpc_endpoint_get_peer(From(endpoint)->tcp_);
  }
  static absl::string_view LocalAddress(grpc_endpoint* endpoint) {
    return grpc_endpoint_get_local_address(From(endpoint)->tcp_);
  }
  static int Fd(grpc_endpoint* endpoint) {
    return grpc_endpoint_get_fd(From(endpoint)->tcp_);
  }
  // The bytes that the kernel tells of are not those that C-core wrote.
  static bool CanTrackError(grpc_endpoint* /*endpoint*/) { return false; }

  static const grpc_endpoint_vtable kVtable;
  // Never needed, see `Decrypt`, but nothing is lost if that was wrong.
  static constexpr size_t kLittleRoom = 4096;

  grpc_endpoint base_;  // first, so that `From` holds
  grpc_endpoint* const tcp_;
  const touchdown_tls_functions functions_;
  // One for the owner of the endpoint, one for each operation of `tcp_`.
  std::atomic<int> references_{1};
  grpc_closure on_read_;
  grpc_closure on_read_on_;
  grpc_closure on_write_;
  grpc_closure on_write_on_;

  Turn turn_;

  // Guards all below. `incoming_` belongs to the read of `tcp_` that is under
  // way, and `outgoing_` to the write.
  std::mutex mutex_;
  touchdown_tls_session* const session_;
  grpc_slice_buffer incoming_;
  grpc_slice_buffer outgoing_;
  grpc_slice_buffer* read_slices_ = nullptr;
  grpc_closure* read_callback_ = nullptr;
  grpc_slice_buffer* write_slices_ = nullptr;
  grpc_closure* write_callback_ = nullptr;
  int max_frame_size_ = 0;
  Records records_;
  // Ciphertext that was taken in, of whose memory the next plaintext is made.
  grpc_slice_buffer room_;
  grpc_slice_buffer plaintext_;
  uint64_t encrypted_ = 0;
  bool writing_ = false;
  bool tcp_ended_ = false;
  bool discarding_ = false;
  bool shut_down_ = false;
  grpc_error_handle write_error_;
};

const grpc_endpoint_vtable TlsEndpoint::kVtable = {
    TlsEndpoint::Read,         TlsEndpoint::Write,
    TlsEndpoint::AddToPollset, TlsEndpoint::AddToPollsetSet,
    TlsEndpoint::DeleteFromPollsetSet, TlsEndpoint::Shutdown,
    TlsEndpoint::Destroy,      TlsEndpoint::Peer,
    TlsEndpoint::LocalAddress, TlsEndpoint::Fd,
    TlsEndpoint::CanTrackError};

}  // namespace

grpc_endpoint* NewTlsEndpoint(grpc_endpoint* tcp,
                              const touchdown_tls_functions& functions,
                              touchdown_tls_session* session) {
  return (new TlsEndpoint(tcp, functions, session))->endpoint();
}

bool HasTcpEnded(grpc_endpoint* tls) {
  return TlsEndpoint::From(tls)->HasTcpEnded();
}

bool IsInRecord(grpc_endpoint* tls) {
  return TlsEndpoint::From(tls)->IsInRecord();
}

uint64_t Encrypted(grpc_endpoint* tls) {
  return TlsEndpoint::From(tls)->Encrypted();
}

void SayGoodbye(grpc_endpoint* tls, int fd, const std::string& last_words) {
  TlsEndpoint::From(tls)->SayGoodbye(fd, last_words);
}

}  // namespace touchdown
