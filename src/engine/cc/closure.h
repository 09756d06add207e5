// How a closure of C-core's is made here.

#ifndef TOUCHDOWN_CLOSURE_H
#define TOUCHDOWN_CLOSURE_H

#include "src/core/lib/iomgr/closure.h"

#ifdef NDEBUG
#error "the larger layout of grpc_closure is needed: compile without NDEBUG"
#endif

namespace touchdown {

// `GRPC_CLOSURE_INIT` is not used: it is another function with NDEBUG.
inline void InitClosure(grpc_closure* closure, grpc_iomgr_cb_func callback,
                        void* arg) {
  closure->cb = callback;
  closure->cb_arg = arg;
  closure->error_data.error = 0;
  closure->scheduled = false;
  closure->run = false;
  closure->file_created = closure->file_initiated = nullptr;
  closure->line_created = closure->line_initiated = 0;
}

}  // namespace touchdown

#endif  // TOUCHDOWN_CLOSURE_H
