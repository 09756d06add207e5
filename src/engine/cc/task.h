// What C-core has run on a thread.

#ifndef TOUCHDOWN_TASK_H
#define TOUCHDOWN_TASK_H

#include <utility>

#include <grpc/event_engine/event_engine.h>

#include "absl/functional/any_invocable.h"
#include "src/core/lib/gprpp/debug_location.h"
#include "src/core/lib/iomgr/exec_ctx.h"
#include "src/core/lib/iomgr/timer.h"

namespace touchdown {

// Something to run: a timer, a closure or a function, whichever is set.
struct Task {
  grpc_timer* timer = nullptr;
  grpc_event_engine::experimental::EventEngine::Closure* closure = nullptr;
  absl::AnyInvocable<void()> function;

  void Run() {
    if (timer != nullptr) {
      grpc_core::ApplicationCallbackExecCtx callback_exec_ctx;
      grpc_core::ExecCtx exec_ctx;
      grpc_core::ExecCtx::Run(DEBUG_LOCATION, timer->closure, absl::OkStatus());
    } else if (closure != nullptr) {
      closure->Run();
    } else {
      function();
    }
  }
};

inline Task OfTimer(grpc_timer* timer) {
  Task task;
  task.timer = timer;
  return task;
}

inline Task OfClosure(grpc_event_engine::experimental::EventEngine::Closure* closure) {
  Task task;
  task.closure = closure;
  return task;
}

inline Task OfFunction(absl::AnyInvocable<void()> function) {
  Task task;
  task.function = std::move(function);
  return task;
}

}  // namespace touchdown

#endif  // TOUCHDOWN_TASK_H
