// C-core's own threads, as few as can be, and none that wakes for nothing.
//
// By itself C-core 1.56.2 starts seven threads, two of which wake every second for
// timers that are not there, and up to two more for each processor when it has much to do. Here one thread,
// `td-core`, does what these do: it runs C-core's timers (`grpc_timer`), everything that C-core asks of its event
// engine, and what is for its executors. It is started with C-core, sleeps until the next
// deadline, without end if there is none, and ends with C-core.
//
// One thread is enough, because nothing that is run there waits: read in 1.56.2,
// these are the ends of timers (keepalive, pings held back, handshakes, deadlines and
// reconnects of clients), closures that were to leave their caller's stack, and combiners that two threads met in:
// without a thread for these, the one that came first would do the others' work for
// as long as more of it comes, and not return to its own call.
//
// What is left of C-core's threads:
// - `default-executo`, which sleeps: without it, C-core would not offer its work.
// - `resolver-execu`, only if GRPC_DNS_RESOLVER asks for the native resolver, which
//   blocks in getaddrinfo; then executors do their own work. The default, c-ares, does not use it.
// - `grpc_global_tim`, only in a program that has nothing of touchdown's but grpcio's
//   channels: it sleeps without end.
//
// There is no backup poller either, for which C-core uses the executor while a
// socket cannot be written to (it wakes every ten seconds, and delays the end of C-core
// by as much), and a timer of clients (every five seconds). It is for programs that
// do not poll all the time. The workers of touchdown and grpcio's environments do, and with
// epoll1 any thread that polls looks after every socket. With another poller
// (GRPC_POLL_STRATEGY) C-core is left as it is in this.
//
// Like shim.cc, this is compiled without NDEBUG, and uses only what is the same with and
// without. Of a `grpc_timer` that is what comes before the debugging field.

#include "threads.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <limits>
#include <memory>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include <grpc/event_engine/event_engine.h>
#include <grpc/support/log.h>

#include "absl/functional/any_invocable.h"
#include "absl/strings/match.h"
#include "src/core/lib/config/config_vars.h"
#include "src/core/lib/experiments/experiments.h"
#include "src/core/lib/gprpp/debug_location.h"
#include "src/core/lib/gprpp/time.h"
#include "src/core/lib/iomgr/closure.h"
#include "src/core/lib/iomgr/error.h"
#include "src/core/lib/iomgr/ev_epoll1_linux.h"
#include "src/core/lib/iomgr/ev_posix.h"
#include "src/core/lib/iomgr/exec_ctx.h"
#include "src/core/lib/iomgr/executor.h"
#include "src/core/lib/iomgr/iomgr_internal.h"
#include "src/core/lib/iomgr/timer.h"
#include "src/core/lib/iomgr/timer_manager.h"
#include "shim.h"

#ifdef NDEBUG
#error "threads.cc needs the larger layout of grpc_closure: compile it without NDEBUG"
#endif

namespace {

using grpc_core::ApplicationCallbackExecCtx;
using grpc_core::ExecCtx;
using grpc_core::Executor;
using grpc_core::Timestamp;
using grpc_event_engine::experimental::EventEngine;

// Times are nanoseconds of C-core's own clock. It runs as the system's monotonic clock
// does, some seconds ahead of it.
constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
constexpr int64_t kSecond = 1000 * 1000 * 1000;

// A process that stood still (stopped, frozen, moved to another machine) finds that time has
// passed, and what has come meanwhile unread. So whoever polls gets a head start: what has come
// may be just what a timer waits for, such as the answer to a keepalive's ping. A thread that
// wakes later than this stood still, or had to wait as long for its turn.
constexpr int64_t kLate = 150 * 1000 * 1000;
constexpr int64_t kHeadStart = 250 * 1000 * 1000;

int64_t Nanoseconds(int64_t seconds, int64_t rest) {
  return seconds >= kNever / kSecond ? kNever : seconds * kSecond + rest;
}

int64_t Later(int64_t time, int64_t by) {
  return by > kNever - time ? kNever : time + by;
}

int64_t Now() {
  const gpr_timespec now = gpr_now(GPR_CLOCK_MONOTONIC);
  return Nanoseconds(now.tv_sec, now.tv_nsec);
}

// C-core rounds what is now down to milliseconds: from this moment on, `deadline` has
// come.
int64_t At(Timestamp deadline) {
  const gpr_timespec time = deadline.as_timespec(GPR_CLOCK_MONOTONIC);
  return Nanoseconds(time.tv_sec, time.tv_nsec);
}

// One of the three.
struct Task {
  grpc_timer* timer = nullptr;
  EventEngine::Closure* closure = nullptr;
  absl::AnyInvocable<void()> function;

  void Run() {
    if (timer != nullptr) {
      ApplicationCallbackExecCtx callback_exec_ctx;
      ExecCtx exec_ctx;
      ExecCtx::Run(DEBUG_LOCATION, timer->closure, absl::OkStatus());
    } else if (closure != nullptr) {
      closure->Run();
    } else {
      function();
    }
  }
};

Task OfTimer(grpc_timer* timer) {
  Task task;
  task.timer = timer;
  return task;
}

Task OfClosure(EventEngine::Closure* closure) {
  Task task;
  task.closure = closure;
  return task;
}

Task OfFunction(absl::AnyInvocable<void()> function) {
  Task task;
  task.function = std::move(function);
  return task;
}

thread_local bool t_is_worker = false;

// The thread, whether it runs or not, and its work. Lives as long as the process.
class Worker {
 public:
  static Worker& Get() {
    static Worker& worker = *new Worker;
    return worker;
  }

  void Run(Task task) {
    std::lock_guard<std::mutex> lock(mutex_);
    ready_.push_back(std::move(task));
    WakeFor(std::numeric_limits<int64_t>::min());
  }

  // Returns false, and does nothing, without a thread.
  bool TryRun(Task task) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!Has()) return false;
    ready_.push_back(std::move(task));
    WakeFor(std::numeric_limits<int64_t>::min());
    return true;
  }

  // While there is certainly room for one.
  void StartNow() {
    std::lock_guard<std::mutex> lock(mutex_);
    Has();
  }

  // Puts another thread in the place of one that sleeps, if there can be another.
  void Renew() {
    std::unique_ptr<Thread> old;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (thread_ == nullptr || !thread_->asleep) return;
      old.reset(std::exchange(thread_, nullptr));
      if (Start() != 0) {
        thread_ = old.release();
        return;
      }
      Dismiss(old.get());
    }
    pthread_join(old->id, nullptr);
  }

  EventEngine::TaskHandle RunAt(int64_t at, Task task) {
    std::lock_guard<std::mutex> lock(mutex_);
    const uint32_t index = Add(at, std::move(task));
    return {static_cast<intptr_t>(index),
            static_cast<intptr_t>(slots_[index].generation)};
  }

  // Whether it was not too late.
  bool Cancel(EventEngine::TaskHandle handle) {
    Task task;  // Destroyed without the lock.
    std::lock_guard<std::mutex> lock(mutex_);
    const size_t index = static_cast<size_t>(handle.keys[0]);
    if (index >= slots_.size() || !slots_[index].waits ||
        static_cast<intptr_t>(slots_[index].generation) != handle.keys[1]) {
      return false;
    }
    task = Remove(static_cast<uint32_t>(index));
    // It may have been the last that a thread on its way out was waiting for.
    if (!in_use_) WakeFor(std::numeric_limits<int64_t>::min());
    return true;
  }

  // Returns false, and does nothing, while C-core is not in use.
  bool Set(grpc_timer* timer, Timestamp deadline) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!in_use_) return false;
    timer->pending = true;
    timer->heap_index = Add(At(deadline), OfTimer(timer));
    return true;
  }

  // Whether the timer was set, and not due yet.
  bool Cancel(grpc_timer* timer) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!timer->pending) return false;
    timer->pending = false;
    Remove(timer->heap_index);
    return true;
  }

  // The timers that are due then, to be run by the caller.
  std::vector<grpc_timer*> TakeTimers(Timestamp now) {
    std::vector<grpc_timer*> taken;
    std::lock_guard<std::mutex> lock(mutex_);
    const int64_t until = At(now);
    for (auto it = order_.begin(); it != order_.end() && it->first <= until;) {
      const uint32_t index = it->second;
      ++it;
      if (slots_[index].task.timer == nullptr) continue;
      taken.push_back(Remove(index).timer);
      taken.back()->pending = false;
    }
    return taken;
  }

  void Begin() {
    std::lock_guard<std::mutex> lock(mutex_);
    in_use_ = true;
  }

  // Ends the thread: at once if it has nothing to do, otherwise when it has done it.
  // Waits only for a thread that does nothing any more but end, since its work might
  // wait for what the caller holds.
  void End() {
    std::unique_ptr<Thread> idle;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      in_use_ = false;
      if (thread_ == nullptr || !thread_->asleep || !IsDone()) return;
      idle.reset(std::exchange(thread_, nullptr));
      Dismiss(idle.get());
    }
    pthread_join(idle->id, nullptr);
  }

 private:
  struct Thread {
    Worker* worker;
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

  Worker() {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&changed_, &attributes);
    pthread_condattr_destroy(&attributes);
  }

  // All below is called with the lock held.

  uint32_t Add(int64_t at, Task task) {
    if (free_.empty()) {
      free_.push_back(static_cast<uint32_t>(slots_.size()));
      slots_.emplace_back();
    }
    const uint32_t index = free_.back();
    free_.pop_back();
    Slot& slot = slots_[index];
    slot.task = std::move(task);
    slot.at = at;
    slot.waits = true;
    order_.emplace(at, index);
    WakeFor(at);
    return index;
  }

  Task Remove(uint32_t index) {
    Slot& slot = slots_[index];
    order_.erase({slot.at, index});
    slot.waits = false;
    ++slot.generation;
    free_.push_back(index);
    return std::exchange(slot.task, Task());
  }

  // One that sleeps: it wakes, and does nothing any more but end.
  void Dismiss(Thread* thread) {
    thread->is_to_end = true;
    pthread_cond_broadcast(&changed_);
  }

  bool IsDone() const { return ready_.empty() && order_.empty(); }

  // If there can be no thread now, the next work tries again.
  bool Has() {
    if (thread_ != nullptr) return true;
    const int error = Start();
    if (error != 0) gpr_log(GPR_ERROR, "no thread for timers: %s", strerror(error));
    return error == 0;
  }

  void WakeFor(int64_t at) {
    if (thread_ == nullptr) {
      Has();
    } else if (thread_->asleep && at < thread_->asleep_until) {
      thread_->asleep_until = at;
      pthread_cond_broadcast(&changed_);
    }
  }

  // Returns an error number.
  int Start() {
    std::unique_ptr<Thread> thread(new Thread{this, pthread_t()});
    // Signals are for the program's threads.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = pthread_create(&thread->id, nullptr, Main, thread.get());
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (error == 0) thread_ = thread.release();
    return error;
  }

  static void* Main(void* arg) {
    Thread* self = static_cast<Thread*>(arg);
    pthread_setname_np(pthread_self(), "td-core");
    t_is_worker = true;
    self->worker->Loop(self);
    return nullptr;
  }

  void Loop(Thread* self) {
    std::unique_lock<std::mutex> lock(mutex_);
    while (!self->is_to_end) {
      Task task;
      if (Next(&task)) {
        lock.unlock();
        task.Run();
        // What it holds may call back.
        task = Task();
        lock.lock();
      } else if (!in_use_ && order_.empty()) {
        // Nobody waits for it.
        pthread_detach(pthread_self());
        thread_ = nullptr;
        delete self;
        return;
      } else {
        Sleep(self);
      }
    }
  }

  bool Next(Task* task) {
    if (!order_.empty() && std::max(order_.begin()->first, resume_at_) <= Now()) {
      *task = Remove(order_.begin()->second);
      if (task->timer != nullptr) task->timer->pending = false;
      return true;
    }
    if (ready_.empty()) return false;
    *task = std::move(ready_.front());
    ready_.pop_front();
    return true;
  }

  void Sleep(Thread* self) {
    const int64_t until =
        order_.empty() ? kNever : std::max(order_.begin()->first, resume_at_);
    self->asleep = true;
    self->asleep_until = until;
    if (until == kNever) {
      pthread_cond_wait(&changed_, mutex_.native_handle());
    } else {
      const timespec time = SystemTime(until);
      pthread_cond_timedwait(&changed_, mutex_.native_handle(), &time);
      const int64_t now = Now();
      // Once only: a thread that is late each time must come to its work.
      if (until != resume_at_ && now > Later(until, kLate)) {
        resume_at_ = Later(now, kHeadStart);
      }
    }
    self->asleep = false;
  }

  // Not too early: the system's time is read last.
  static timespec SystemTime(int64_t time) {
    const int64_t left = std::max<int64_t>(time - Now(), 0);
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    const int64_t at = Later(Nanoseconds(now.tv_sec, now.tv_nsec), left);
    const int64_t most = std::numeric_limits<time_t>::max();
    timespec it;
    it.tv_sec = static_cast<time_t>(std::min(at / kSecond, most));
    it.tv_nsec = static_cast<long>(at % kSecond);
    return it;
  }

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

class Engine : public EventEngine {
 public:
  bool IsWorkerThread() override { return t_is_worker; }

  void Run(Closure* closure) override { Worker::Get().Run(OfClosure(closure)); }
  void Run(absl::AnyInvocable<void()> closure) override {
    Worker::Get().Run(OfFunction(std::move(closure)));
  }
  TaskHandle RunAfter(Duration when, Closure* closure) override {
    return Worker::Get().RunAt(Later(Now(), when.count()), OfClosure(closure));
  }
  TaskHandle RunAfter(Duration when,
                      absl::AnyInvocable<void()> closure) override {
    return Worker::Get().RunAt(Later(Now(), when.count()), OfFunction(std::move(closure)));
  }
  bool Cancel(TaskHandle handle) override { return Worker::Get().Cancel(handle); }

  // C-core asks an engine for sockets and names only in the experiments under
  // which this engine is not used.

  absl::StatusOr<std::unique_ptr<Listener>> CreateListener(
      Listener::AcceptCallback, absl::AnyInvocable<void(absl::Status)>,
      const grpc_event_engine::experimental::EndpointConfig&,
      std::unique_ptr<grpc_event_engine::experimental::MemoryAllocatorFactory>)
      override {
    return Missing();
  }

  ConnectionHandle Connect(OnConnectCallback on_connect, const ResolvedAddress&,
                           const grpc_event_engine::experimental::EndpointConfig&,
                           grpc_event_engine::experimental::MemoryAllocator,
                           Duration) override {
    Run([on_connect = std::move(on_connect)]() mutable { on_connect(Missing()); });
    return ConnectionHandle::kInvalid;
  }

  bool CancelConnect(ConnectionHandle) override { return false; }

  std::unique_ptr<DNSResolver> GetDNSResolver(
      const DNSResolver::ResolverOptions&) override {
    gpr_log(GPR_ERROR, "the event engine resolves no names");
    abort();
  }

 private:
  static absl::Status Missing() {
    return absl::UnimplementedError("the event engine has no sockets");
  }
};

// How long C-core waits for the acknowledgement of the ping behind its GOAWAY
// (chttp2_transport.cc, `GracefulGoaway`) before it sends the final one, on its own and by the
// clock. How long it is to be waited is not C-core's to say here, so this time does not come to
// an end; the wait does, with the acknowledgement or the connection.
constexpr EventEngine::Duration kGoawayTime = std::chrono::seconds(20);
constexpr EventEngine::Duration kNoEnd = std::chrono::hours(24 * 365);

std::atomic<bool> g_goaways_sent{false};

// For the connections of servers alone: a client's keepalive takes 20 s by default.
class ServerEngine final : public Engine {
 public:
  using Engine::RunAfter;
  TaskHandle RunAfter(Duration when,
                      absl::AnyInvocable<void()> closure) override {
    if (when == kGoawayTime && g_goaways_sent.load(std::memory_order_relaxed)) {
      when = kNoEnd;
    }
    return Engine::RunAfter(when, std::move(closure));
  }
};

void TimerInit(grpc_timer* timer, Timestamp deadline, grpc_closure* closure) {
  timer->deadline = deadline.milliseconds_after_process_epoch();
  timer->closure = closure;
  timer->pending = false;
  if (deadline <= Timestamp::Now()) {
    ExecCtx::Run(DEBUG_LOCATION, closure, absl::OkStatus());
  } else if (!Worker::Get().Set(timer, deadline)) {
    ExecCtx::Run(DEBUG_LOCATION, closure,
                 absl::UnavailableError("C-core is shut down"));
  }
}

void TimerCancel(grpc_timer* timer) {
  if (Worker::Get().Cancel(timer)) {
    ExecCtx::Run(DEBUG_LOCATION, timer->closure, absl::CancelledError());
  }
}

bool RunTimers(Timestamp now, const grpc_error_handle& error) {
  const std::vector<grpc_timer*> due = Worker::Get().TakeTimers(now);
  for (grpc_timer* timer : due) {
    ExecCtx::Run(DEBUG_LOCATION, timer->closure, error);
  }
  return !due.empty();
}

// C-core calls this when it shuts down, with a time that never comes, and from its own
// timer thread, which need not know of any deadline.
grpc_timer_check_result TimerCheck(Timestamp* /*next*/) {
  const Timestamp now = Timestamp::Now();
  const bool ran = RunTimers(
      now, now == Timestamp::InfFuture()
               ? absl::UnavailableError("C-core shuts down")
               : absl::OkStatus());
  return ran ? GRPC_TIMERS_FIRED : GRPC_TIMERS_CHECKED_AND_EMPTY;
}

// Whether C-core's event engine is asked for more than ours has.
bool NeedsSockets() {
  return grpc_core::IsEventEngineClientEnabled() ||
         grpc_core::IsEventEngineListenerEnabled() ||
         grpc_core::IsEventEngineDnsEnabled();
}

bool ResolverBlocks() {
  const absl::string_view name = grpc_core::ConfigVars::Get().DnsResolver();
  return !name.empty() && !absl::EqualsIgnoreCase(name, "ares");
}

// C-core calls this whenever it starts, when its executors are there and nobody can
// have used them.
void TimerListInit() {
  static const bool chosen = [] {
    if (!NeedsSockets()) {
      grpc_event_engine::experimental::SetEventEngineFactory(
          [] { return std::unique_ptr<EventEngine>(new Engine); });
    }
    return true;
  }();
  (void)chosen;
  Worker::Get().Begin();
  if (!ResolverBlocks()) {
    Executor::SetThreadingAll(false);
    Executor::SetThreadingDefault(true);
  }
}

void TimerListShutdown() {
  RunTimers(Timestamp::InfFuture(), absl::UnavailableError("C-core shuts down"));
  Worker::Get().End();
}

void TimerConsumeKick() {}

grpc_timer_vtable g_timers = {TimerInit,     TimerCancel,       TimerCheck,
                              TimerListInit, TimerListShutdown, TimerConsumeKick};

grpc_event_engine_vtable g_epoll;

// C-core offers here what is for its executors. These start up to two threads for each processor when there is much
// to do, and if one of them cannot be started, what was to run on it never does.
bool RunInBackground(grpc_closure* closure, grpc_error_handle error) {
  if (ResolverBlocks()) return false;
  return Worker::Get().TryRun(OfFunction([closure, error] {
    // As the executor has them, and done before the context ends: in another one, or one that ends, a combiner
    // that is contended is offered again, without end.
    ApplicationCallbackExecCtx callback_exec_ctx(
        GRPC_APP_CALLBACK_EXEC_CTX_FLAG_IS_INTERNAL_THREAD);
    ExecCtx exec_ctx(GRPC_EXEC_CTX_FLAG_IS_INTERNAL_THREAD);
    ExecCtx::Run(DEBUG_LOCATION, closure, error);
    exec_ctx.Flush();
  }));
}

// C-core's own, which cannot be copied earlier, without the backup poller.
bool CheckEpoll(bool explicit_request) {
  g_epoll = grpc_ev_epoll1_posix;
  g_epoll.run_in_background = true;
  g_epoll.add_closure_to_background_poller = RunInBackground;
  return grpc_ev_epoll1_posix.check_engine_available(explicit_request);
}

// Before C-core is used by anybody, so while the program is loaded: timers cannot
// change while there are some. If other timers were put in earlier, they stay.
const bool g_installed = [] {
  if (grpc_have_determined_iomgr_platform()) return false;
  grpc_set_default_iomgr_platform();
  grpc_set_timer_impl(&g_timers);
  g_epoll.name = "epoll1";
  g_epoll.check_engine_available = CheckEpoll;
  grpc_register_event_engine_factory(&g_epoll, true);
  return true;
}();

}  // namespace

std::shared_ptr<EventEngine> touchdown::ServerEventEngine() {
  if (!g_installed || NeedsSockets()) return nullptr;
  static const std::shared_ptr<EventEngine>& engine =
      *new std::shared_ptr<EventEngine>(new ServerEngine);
  return engine;
}

void touchdown::WaitForAcknowledgements() {
  g_goaways_sent.store(true, std::memory_order_relaxed);
}

void touchdown_end_spare_threads(void) {
  if (!g_installed) return;
  grpc_timer_manager_set_threading(false);
  Worker::Get().StartNow();
}

void touchdown_renew_threads(void) {
  if (g_installed) Worker::Get().Renew();
}
