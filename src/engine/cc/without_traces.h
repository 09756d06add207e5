// Comes before all else in every file here: build.rs has the compiler include it.
//
// Some of C-core's trace flags are objects only if it is compiled without NDEBUG, and what uses a slice reads one of
// them. In a C-core with NDEBUG something else stands there. So they are seen as with NDEBUG, where nobody reads them.

#ifndef TOUCHDOWN_WITHOUT_TRACES_H
#define TOUCHDOWN_WITHOUT_TRACES_H

// What trace.h includes, as it is everywhere else.
#include <grpc/support/port_platform.h>

#include <atomic>
#include <map>
#include <string>

#include "absl/strings/string_view.h"

#define NDEBUG 1
#include "src/core/lib/debug/trace.h"
#undef NDEBUG

#endif  // TOUCHDOWN_WITHOUT_TRACES_H
