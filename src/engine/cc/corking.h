// Writes that wait for others, to go out together.

#ifndef TOUCHDOWN_CORKING_H
#define TOUCHDOWN_CORKING_H

#include <stdint.h>

#include <atomic>
#include <mutex>
#include <vector>

#include "src/core/lib/iomgr/endpoint.h"

namespace touchdown {

// What `grpc_endpoint_write` is called with.
struct EndpointWrite {
  grpc_endpoint* endpoint;
  grpc_slice_buffer* slices;
  grpc_closure* callback;
  void* arg;
  int max_frame_size;
};

// The writes of a server that wait until their thread has no more to do: see `touchdown_cork`.
class Corking {
 public:
  // The writes that the calling thread begins wait from now on.
  void Begin();

  // Keeps the write and returns true, if writes of the calling thread wait. C-core has one
  // write at a time for each endpoint, and keeps the endpoint until the callback was run.
  bool Keep(const EndpointWrite& write);

  // Ends that for the calling thread, and begins every write that waits.
  void End();

  // Begins every write that waits. Threads that have corked before the last call of this
  // hold nothing back any more.
  void EndOld();

 private:
  void BeginWrites(bool new_epoch);

  std::mutex mutex_;
  std::vector<EndpointWrite> waiting_;
  // A thread that corked two epochs ago holds nothing back any more. Written with
  // `mutex_` held.
  std::atomic<uint64_t> epoch_{0};
};

}  // namespace touchdown

#endif  // TOUCHDOWN_CORKING_H
