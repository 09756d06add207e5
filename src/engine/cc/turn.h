// Connections take turns at being read.

#ifndef TOUCHDOWN_TURN_H
#define TOUCHDOWN_TURN_H

#include <stddef.h>

#include "absl/functional/any_invocable.h"
#include "src/core/lib/iomgr/closure.h"
#include "src/core/lib/iomgr/endpoint.h"

namespace touchdown {

// Runs this on `td-core`, behind what waits there already, with C-core's contexts. Returns false, and
// does nothing, if there can be no such thread.
bool RunInTurn(absl::AnyInvocable<void()> task);

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
