// Connections take turns at being read.

#ifndef TOUCHDOWN_TURN_H
#define TOUCHDOWN_TURN_H

#include <grpc/grpc.h>
#include <stddef.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <mutex>

#include "absl/functional/any_invocable.h"
#include "src/core/lib/iomgr/closure.h"
#include "src/core/lib/iomgr/endpoint.h"

namespace touchdown {

// Runs this on `td-core`, behind what waits there already, with C-core's contexts. Returns false, and
// does nothing, if there can be no such thread.
bool RunInTurn(absl::AnyInvocable<void()> task);

// The calls of all connections of a server begin, and end, in rounds. C-core hands calls out in the order in which they come, so
// that a caller would otherwise wait for all calls of all others. In a round there is room for some calls; when it is used up, the next
// begins when the calls of this one are with their handlers, or wait fairly for one, and the sockets were looked at. A connection
// with more calls than there is room for goes on in its turn, one connection a round.
class Turns {
 public:
  // From now on `tag` comes from this queue when a round is over.
  void Begin(grpc_completion_queue* queue, void* tag);
  // The queue is about to go. Nobody waits any more.
  void End();
  // How many calls of a connection may begin, or end, now: the fewer, the more wait for their turns.
  size_t OneGo() const {
    if (used_.load(std::memory_order_relaxed) >= kRound) return 1;
    return std::max<size_t>(kRound / (1 + waiting_.load(std::memory_order_relaxed)), kLeast);
  }
  // So many have begun, or ended.
  void Use(size_t calls);
  // Has this run in its turn. Returns false, and does nothing, if there are no turns.
  bool Wait(absl::AnyInvocable<void()> task);
  // The tag has come. Takes the first turn, and has the tag come again if there are more.
  void Take();

 private:
  // What takes up to 1 ms; and as few as may still be a turn, which costs about as much as one of them.
  static constexpr size_t kRound = 32;
  static constexpr size_t kLeast = 4;

  // Has the tag come; or, if that cannot be any more, all turns taken.
  void Post();

  std::mutex mutex_;
  // How much of the round is used, and how many tasks there are: numbers to compare with.
  std::atomic<size_t> used_{0};
  std::atomic<size_t> waiting_{0};
  grpc_completion_queue* queue_ = nullptr;
  void* tag_ = nullptr;
  std::deque<absl::AnyInvocable<void()>> tasks_;
  std::atomic<bool> is_posted_{false};
};

// C-core reads on in the same thread as long as the socket has bytes. A peer that sends
// faster than C-core takes in would keep the thread, which is the one that polls for
// everybody. So who has been read for long enough in one go goes on on `td-core`, which reads each
// such connection in turn, and the thread goes back to poll.
//
// There is one read at a time, which is all that makes this safe to be used by several threads.
class Turn {
 public:
  // Reads from a TCP endpoint. `Came` is to be called first in `on_read`.
  void Read(grpc_endpoint* tcp, grpc_slice_buffer* slices, grpc_closure* on_read,
            bool urgent, int min_progress);
  void Came(size_t bytes);

 private:
  void ReadNow(grpc_endpoint* tcp, grpc_slice_buffer* slices,
               grpc_closure* on_read, bool urgent, int min_progress);

  // How much has been read in this go.
  size_t used_ = 0;
};

}  // namespace touchdown

#endif  // TOUCHDOWN_TURN_H
