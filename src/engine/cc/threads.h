// The event engine of servers, if C-core's threads are ours: see threads.cc.

#ifndef TOUCHDOWN_THREADS_H
#define TOUCHDOWN_THREADS_H

#include <memory>

#include <grpc/event_engine/event_engine.h>

namespace touchdown {

// The event engine for the connections of servers; null if C-core uses another one than ours.
std::shared_ptr<grpc_event_engine::experimental::EventEngine> ServerEventEngine();

}  // namespace touchdown

#endif  // TOUCHDOWN_THREADS_H
