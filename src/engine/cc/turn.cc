// Compiled without NDEBUG, as shim.cc is, and careful in the same way.

#include "turn.h"

#include <utility>

#include "core_thread.h"
#include "shim.h"
#include "src/core/lib/iomgr/exec_ctx.h"
#include "task.h"

namespace touchdown {
namespace {

// How many bytes are read in one go: about 0.1 ms of what C-core takes in most slowly,
// headers, and more than most clients have on the way at any time.
constexpr size_t kOneGo = 64 << 10;

// Whose read is being begun by this thread. What it has at once belongs to the same go.
thread_local Turn* t_reading = nullptr;

// How many sockets are looked at between two rounds, if anybody waits for the next: of those with calls, most wait themselves.
constexpr int kLooks = 16;

Task InContexts(absl::AnyInvocable<void()> task) {
  return OfFunction([task = std::move(task)]() mutable {
    grpc_core::ApplicationCallbackExecCtx callback_exec_ctx;
    grpc_core::ExecCtx exec_ctx;
    task();
  });
}

}  // namespace

bool RunInTurn(absl::AnyInvocable<void()> task) {
  return CoreThread::Get().TryRun(InContexts(std::move(task)));
}

void Turns::Begin(grpc_completion_queue* queue, void* tag) {
  std::lock_guard<std::mutex> lock(mutex_);
  queue_ = queue;
  tag_ = tag;
}

void Turns::End() {
  std::deque<absl::AnyInvocable<void()>> left;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    queue_ = nullptr;
    left.swap(tasks_);
    waiting_.store(0, std::memory_order_relaxed);
  }
  // Also if there can be no such thread now.
  for (auto& task : left) CoreThread::Get().Run(InContexts(std::move(task)));
}

void Turns::Use(size_t calls) {
  if (used_.fetch_add(calls) + calls < kRound) return;
  if (!is_posted_.load() && !is_posted_.exchange(true)) Post();
}

bool Turns::Wait(absl::AnyInvocable<void()> task) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (queue_ == nullptr) return false;
    tasks_.push_back(std::move(task));
    waiting_.store(tasks_.size(), std::memory_order_relaxed);
  }
  if (!is_posted_.exchange(true)) Post();
  return true;
}

void Turns::Take() {
  absl::AnyInvocable<void()> task;
  bool are_more;
  grpc_completion_queue* queue;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    queue = queue_;
  }
  // Who takes turns has got the tag from it.
  if (queue != nullptr) touchdown_queue_poll(queue, waiting_.load() > 0 ? kLooks : 2);
  // Who uses the round up from now on has the tag come; or finds that it will come, and it does for those that wait.
  is_posted_.store(false);
  used_.store(0);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!tasks_.empty()) {
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    are_more = !tasks_.empty();
    waiting_.store(tasks_.size(), std::memory_order_relaxed);
  }
  if (task) {
    grpc_core::ApplicationCallbackExecCtx callback_exec_ctx;
    grpc_core::ExecCtx exec_ctx;
    task();
  }
  // Behind the calls that have begun just now.
  if (are_more && !is_posted_.exchange(true)) Post();
}

void Turns::Post() {
  {
    // The queue is there as long as this is held.
    std::lock_guard<std::mutex> lock(mutex_);
    if (queue_ != nullptr && touchdown_queue_post(queue_, tag_) != 0) return;
  }
  // Nobody polls any more.
  End();
}

void Turn::Read(grpc_endpoint* tcp, grpc_slice_buffer* slices,
                grpc_closure* on_read, bool urgent, int min_progress) {
  if (used_ >= kOneGo) {
    used_ = 0;
    if (RunInTurn([=] { ReadNow(tcp, slices, on_read, urgent, min_progress); })) {
      return;
    }
  }
  ReadNow(tcp, slices, on_read, urgent, min_progress);
}

void Turn::ReadNow(grpc_endpoint* tcp, grpc_slice_buffer* slices,
                   grpc_closure* on_read, bool urgent, int min_progress) {
  Turn* outer = t_reading;
  t_reading = this;
  grpc_endpoint_read(tcp, slices, on_read, urgent, min_progress);
  // This may be gone now.
  t_reading = outer;
}

void Turn::Came(size_t bytes) {
  // If not, the thread has polled, and may do so again.
  if (t_reading != this) used_ = 0;
  used_ += bytes;
}

}  // namespace touchdown
