// What shim.cc needs of threads.cc.

#ifndef TOUCHDOWN_THREADS_H
#define TOUCHDOWN_THREADS_H

#include <memory>

#include <grpc/event_engine/event_engine.h>

namespace touchdown {

// The event engine for the connections of servers; null if C-core uses another one than ours.
std::shared_ptr<grpc_event_engine::experimental::EventEngine> ServerEventEngine();

// From now on the connections of servers wait without end for the acknowledgement of a
// GOAWAY. By itself C-core waits for 20 s.
void WaitForAcknowledgements();

}  // namespace touchdown

#endif  // TOUCHDOWN_THREADS_H
