// An endpoint that speaks TLS over another one.

#ifndef TOUCHDOWN_TLS_H
#define TOUCHDOWN_TLS_H

#include <string>

#include "shim.h"
#include "src/core/lib/iomgr/endpoint.h"

namespace touchdown {

// Takes over `tcp` and `session`.
grpc_endpoint* NewTlsEndpoint(grpc_endpoint* tcp,
                              const touchdown_tls_functions& functions,
                              touchdown_tls_session* session);

// Whether nothing more can come from the peer. A read of the endpoint also fails when the
// session has failed or was closed, and then the socket may still be open.
bool HasTcpEnded(grpc_endpoint* tls);

// To be called right before FIN is sent on `fd`. Tells the peer that this is the end
// of what was sent (close_notify), unless something is still being written: this
// does not block, and nothing may come in between. From now on reads of the
// endpoint end successfully when something has come in, which is dropped. Before that end the peer is sent these
// last words, if there are any.
void SayGoodbye(grpc_endpoint* tls, int fd, const std::string& last_words);

// Whether a part of a record has come, and the rest not yet.
bool IsInRecord(grpc_endpoint* tls);

// How many bytes the TCP endpoint has been given to write so far. Once a write of this endpoint
// has ended, they are with the kernel.
uint64_t Encrypted(grpc_endpoint* tls);

}  // namespace touchdown

#endif  // TOUCHDOWN_TLS_H
