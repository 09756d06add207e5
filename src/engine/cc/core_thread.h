// The one thread that does C-core's work: `td-core`.

#ifndef TOUCHDOWN_CORE_THREAD_H
#define TOUCHDOWN_CORE_THREAD_H

#include <pthread.h>
#include <stdint.h>

#include <deque>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include <grpc/event_engine/event_engine.h>

#include "core_clock.h"
#include "src/core/lib/gprpp/time.h"
#include "src/core/lib/iomgr/timer.h"
#include "task.h"

namespace touchdown {

// The thread, whether it runs or not, and its work. Lives as long as the process.
class CoreThread {
 public:
  using TaskHandle = grpc_event_engine::experimental::EventEngine::TaskHandle;

  static CoreThread& Get();

  // Whether the calling thread is the one.
  static bool IsThis();

  // Work: what is to be run at once, or at a time of C-core's clock.

  void Run(Task task);
  // Returns false, and does nothing, without a thread.
  bool TryRun(Task task);
  TaskHandle RunAt(int64_t at, Task task);
  // Whether it was not too late.
  bool Cancel(TaskHandle handle);

  // Timers, which are work too.

  // Returns false, and does nothing, while C-core is not in use.
  bool Set(grpc_timer* timer, grpc_core::Timestamp deadline);
  // Whether the timer was set, and not due yet.
  bool Cancel(grpc_timer* timer);
  // The timers that are due then, to be run by the caller.
  std::vector<grpc_timer*> TakeTimers(grpc_core::Timestamp now);

  // The thread's own beginning and end.

  // Starts the thread while there is certainly room for one.
  void StartNow();
  // Puts another thread in the place of one that sleeps, if there can be another.
  void Renew();
  // C-core is in use from now on.
  void Begin();
  // Ends the thread: at once if it has nothing to do, otherwise when it has done it.
  // Waits only for a thread that does nothing any more but end, since its work might
  // wait for what the caller holds.
  void End();

 private:
  struct Thread {
    CoreThread* owner;
    pthread_t id;
    bool is_to_end = false;
    // Whether it sleeps, and until when nobody need wake it.
    bool asleep = false;
    int64_t asleep_until = kNever;
  };

  struct Slot {
    Task task;
    int64_t at = 0;
    // How often the slot has been used: tells a handle of now from one of before.
    uint32_t generation = 0;
    bool waits = false;
  };

  CoreThread();

  // All below is called with the lock held.

  uint32_t Add(int64_t at, Task task);
  Task Remove(uint32_t index);
  // One that sleeps: it wakes, and does nothing any more but end.
  void Dismiss(Thread* thread);
  bool IsDone() const { return ready_.empty() && order_.empty(); }
  // If there can be no thread now, the next work tries again.
  bool Has();
  void WakeFor(int64_t at);
  // Returns an error number.
  int Start();
  static void* Main(void* arg);
  void Loop(Thread* self);
  bool Next(Task* task);
  void Sleep(Thread* self);

  std::mutex mutex_;
  pthread_cond_t changed_;
  std::deque<Task> ready_;
  // What is to be run later, in order of time, and where it is.
  std::set<std::pair<int64_t, uint32_t>> order_;
  // Until when nothing of it is run, whatever its time: see `kHeadStart`.
  int64_t resume_at_ = 0;
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
  // Whether C-core is.
  bool in_use_ = false;
  Thread* thread_ = nullptr;
};

}  // namespace touchdown

#endif  // TOUCHDOWN_CORE_THREAD_H
