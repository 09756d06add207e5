// Compiled without NDEBUG, as shim.cc is, and careful in the same way.

#include "event_engine.h"

#include <stdlib.h>

#include <atomic>
#include <chrono>
#include <utility>

#include <grpc/support/log.h>

#include "absl/functional/any_invocable.h"
#include "core_clock.h"
#include "core_thread.h"
#include "task.h"

namespace touchdown {

using grpc_event_engine::experimental::EventEngine;

namespace {

// The event engine of C-core, with one thread.
class CoreEngine : public EventEngine {
 public:
  bool IsWorkerThread() override { return CoreThread::IsThis(); }

  void Run(Closure* closure) override { CoreThread::Get().Run(OfClosure(closure)); }
  void Run(absl::AnyInvocable<void()> closure) override {
    CoreThread::Get().Run(OfFunction(std::move(closure)));
  }
  TaskHandle RunAfter(Duration when, Closure* closure) override {
    return CoreThread::Get().RunAt(Later(Now(), when.count()), OfClosure(closure));
  }
  TaskHandle RunAfter(Duration when,
                      absl::AnyInvocable<void()> closure) override {
    return CoreThread::Get().RunAt(Later(Now(), when.count()), OfFunction(std::move(closure)));
  }
  bool Cancel(TaskHandle handle) override { return CoreThread::Get().Cancel(handle); }

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
class ServerEngine final : public CoreEngine {
 public:
  using CoreEngine::RunAfter;
  TaskHandle RunAfter(Duration when,
                      absl::AnyInvocable<void()> closure) override {
    if (when == kGoawayTime && g_goaways_sent.load(std::memory_order_relaxed)) {
      when = kNoEnd;
    }
    return CoreEngine::RunAfter(when, std::move(closure));
  }
};

}  // namespace

std::unique_ptr<EventEngine> NewEventEngine() {
  return std::unique_ptr<EventEngine>(new CoreEngine);
}

std::shared_ptr<EventEngine> TheServerEngine() {
  static const std::shared_ptr<EventEngine>& engine =
      *new std::shared_ptr<EventEngine>(new ServerEngine);
  return engine;
}

void WaitForAcknowledgements() {
  g_goaways_sent.store(true, std::memory_order_relaxed);
}

}  // namespace touchdown
