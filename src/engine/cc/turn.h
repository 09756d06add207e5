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

// Who has begun many calls in one go, and has more: the connections of one server. Each goes on when the calls that have
// begun are with their handlers, or wait fairly for one, and every socket was looked at: C-core hands calls out in the order
// in which they come, so that a caller would otherwise wait for all calls of another.
class Turns {
 public:
  // From now on `tag` comes from this queue when there may be a turn to take.
  void Begin(grpc_completion_queue* queue, void* tag);
  // The queue is about to go. Nobody waits any more.
  void End();
  // How many calls may begin, or end, in one go: the fewer, the more wait for their turns.
  size_t OneGo() const {
    return std::max<size_t>(kMost / (1 + waiting_.load(std::memory_order_relaxed)), kLeast);
  }
  // Has this run in its turn. Returns false, and does nothing, if there are no turns.
  bool Wait(absl::AnyInvocable<void()> task);
  // The tag has come, and nothing comes before. Takes the first turn, and has the tag come again if there are more.
  void Take();
  // Has the tag come; or, if that cannot be any more, all turns taken. For who has got it while others come before.
  void Post();

 private:
  // What takes up to 1 ms; and as few as may still be a turn, which costs about as much as one of them.
  static constexpr size_t kMost = 32;
  static constexpr size_t kLeast = 4;

  std::mutex mutex_;
  // How many tasks there are; a number to compare with.
  std::atomic<size_t> waiting_{0};
  grpc_completion_queue* queue_ = nullptr;
  void* tag_ = nullptr;
  std::deque<absl::AnyInvocable<void()>> tasks_;
  bool is_posted_ = false;
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
