// C-core's own threads, as few as can be, and none that wakes for nothing: what is put in their
// places while the program is loaded.
//
// By itself C-core 1.56.2 starts seven threads, two of which wake every second for timers that are
// not there. It starts up to two more for each processor when it has much to do. Here one thread,
// `td-core` (core_thread.cc), does what these do: it runs C-core's timers (`grpc_timer`), everything
// that C-core asks of its event engine, and what is for its executors. It is started with C-core. It
// sleeps until the next deadline, or without end if there is none. It ends with C-core.
//
// One thread is enough, because nothing that is run there waits. In 1.56.2 these are the ends of timers
// (keepalive, pings held back, handshakes, deadlines and reconnects of clients), closures that were to
// leave their caller's stack, and combiners that two threads met in. Without a thread for the last, the
// thread that came first would do the others' work for as long as more of it comes, and not return to
// its own call.
//
// What is left of C-core's threads:
// - `default-executo`, which sleeps: without it, C-core would not offer its work.
// - `resolver-execu`, only if GRPC_DNS_RESOLVER asks for the native resolver, which
//   blocks in getaddrinfo; then executors do their own work. The default, c-ares, does not use it.
// - `grpc_global_tim`, only in a program that has nothing of touchdown's but grpcio's
//   channels: it sleeps without end.
//
// There is no backup poller either. C-core has one on its executor while a socket cannot be written
// to: it wakes every ten seconds, and delays the end of C-core by as much. Clients have another one by
// a timer, every five seconds. Both are for programs that do not poll all the time. The workers of
// touchdown and grpcio's environments do, and with epoll1 any thread that polls looks after every
// socket. With another poller (GRPC_POLL_STRATEGY) the backup pollers stay.
//
// Like shim.cc, this is compiled without NDEBUG, and uses only what is the same with and
// without. Of a `grpc_timer` that is what comes before the debugging field.

#include "threads.h"

#include <memory>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "core_thread.h"
#include "event_engine.h"
#include "shim.h"
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
#include "task.h"

#ifdef NDEBUG
#error "threads.cc needs the larger layout of grpc_closure: compile it without NDEBUG"
#endif

namespace {

using grpc_core::ApplicationCallbackExecCtx;
using grpc_core::ExecCtx;
using grpc_core::Executor;
using grpc_core::Timestamp;
using grpc_event_engine::experimental::EventEngine;
using touchdown::CoreThread;
using touchdown::OfFunction;

void TimerInit(grpc_timer* timer, Timestamp deadline, grpc_closure* closure) {
  timer->deadline = deadline.milliseconds_after_process_epoch();
  timer->closure = closure;
  timer->pending = false;
  if (deadline <= Timestamp::Now()) {
    ExecCtx::Run(DEBUG_LOCATION, closure, absl::OkStatus());
  } else if (!CoreThread::Get().Set(timer, deadline)) {
    ExecCtx::Run(DEBUG_LOCATION, closure,
                 absl::UnavailableError("C-core is shut down"));
  }
}

void TimerCancel(grpc_timer* timer) {
  if (CoreThread::Get().Cancel(timer)) {
    ExecCtx::Run(DEBUG_LOCATION, timer->closure, absl::CancelledError());
  }
}

bool RunTimers(Timestamp now, const grpc_error_handle& error) {
  const std::vector<grpc_timer*> due = CoreThread::Get().TakeTimers(now);
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
          touchdown::NewEventEngine);
    }
    return true;
  }();
  (void)chosen;
  CoreThread::Get().Begin();
  if (!ResolverBlocks()) {
    Executor::SetThreadingAll(false);
    Executor::SetThreadingDefault(true);
  }
}

void TimerListShutdown() {
  RunTimers(Timestamp::InfFuture(), absl::UnavailableError("C-core shuts down"));
  CoreThread::Get().End();
}

void TimerConsumeKick() {}

grpc_timer_vtable g_timers = {TimerInit,     TimerCancel,       TimerCheck,
                              TimerListInit, TimerListShutdown, TimerConsumeKick};

grpc_event_engine_vtable g_epoll;

// C-core offers here what is for its executors. These start up to two threads for each processor when
// there is much to do. If one of them cannot be started, what was to run on it never does.
bool RunInBackground(grpc_closure* closure, grpc_error_handle error) {
  if (ResolverBlocks()) return false;
  return CoreThread::Get().TryRun(OfFunction([closure, error] {
    // The contexts are as the executor has them, and the work is done before they end: in another
    // context, or in one that ends, a contended combiner is offered again, without end.
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
  return touchdown::TheServerEngine();
}

void touchdown_end_spare_threads(void) {
  if (!g_installed) return;
  grpc_timer_manager_set_threading(false);
  CoreThread::Get().StartNow();
}

void touchdown_renew_threads(void) {
  if (g_installed) CoreThread::Get().Renew();
}
