// Compiled without NDEBUG, as shim.cc is, and careful in the same way.

#include "corking.h"

#include "src/core/lib/iomgr/exec_ctx.h"

namespace touchdown {
namespace {

// The server whose writes are to wait if this thread begins them. C-core lets a
// thread work for any server of the process, so it is not enough to know that
// some are to wait: nobody would begin another server's.
thread_local const Corking* t_corked = nullptr;
thread_local uint64_t t_epoch = 0;

}  // namespace

void Corking::Begin() {
  t_corked = this;
  t_epoch = epoch_.load(std::memory_order_relaxed);
}

bool Corking::Keep(const EndpointWrite& write) {
  if (t_corked != this) return false;
  std::lock_guard<std::mutex> lock(mutex_);
  if (epoch_.load(std::memory_order_relaxed) - t_epoch >= 2) return false;
  waiting_.push_back(write);
  return true;
}

void Corking::End() {
  t_corked = nullptr;
  BeginWrites(/*new_epoch=*/false);
}

void Corking::EndOld() { BeginWrites(/*new_epoch=*/true); }

void Corking::BeginWrites(bool new_epoch) {
  std::vector<EndpointWrite> waiting;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (new_epoch) epoch_.fetch_add(1, std::memory_order_relaxed);
    waiting.swap(waiting_);
  }
  if (waiting.empty()) return;
  grpc_core::ApplicationCallbackExecCtx callback_exec_ctx;
  grpc_core::ExecCtx exec_ctx;
  for (const EndpointWrite& write : waiting) {
    grpc_endpoint_write(write.endpoint, write.slices, write.callback, write.arg,
                        write.max_frame_size);
  }
}

}  // namespace touchdown
