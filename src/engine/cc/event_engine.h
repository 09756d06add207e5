// C-core's event engine: what C-core has run, it has `td-core` run.

#ifndef TOUCHDOWN_EVENT_ENGINE_H
#define TOUCHDOWN_EVENT_ENGINE_H

#include <memory>

#include <grpc/event_engine/event_engine.h>

namespace touchdown {

// For everything but the connections of servers. It has no sockets and resolves no names.
std::unique_ptr<grpc_event_engine::experimental::EventEngine> NewEventEngine();

// For the connections of servers; there is one.
std::shared_ptr<grpc_event_engine::experimental::EventEngine> TheServerEngine();

// From now on the connections of servers wait without end for the acknowledgement of a
// GOAWAY. By itself C-core waits for 20 s.
void WaitForAcknowledgements();

}  // namespace touchdown

#endif  // TOUCHDOWN_EVENT_ENGINE_H
