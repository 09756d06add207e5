// What a program without the feature `client` has of C-core: what touchdown's servers need, and channels on a
// socket that is connected already, with which a server tests itself.
//
// The linker keeps all that is referred to, and C-core refers to all that it has from a few functions.
// Here are others in their places. The linker finds these before C-core's own, and so takes neither
// those nor what only they need: resolvers of names with c-ares, load balancing, retries, service
// configs, JSON, compression and time zones. Only some of these write to C++ streams, so a third of the
// C++ library goes, too. If something else that is defined beside one of those functions were needed,
// the linker would find two of it, and say so.
//
// Compiled without NDEBUG, as shim.cc is, and careful in the same way.

#include "without_client.h"

#include <grpc/support/log.h>
#include <limits.h>

#include <memory>
#include <string>

#include "absl/flags/usage_config.h"
#include "absl/strings/string_view.h"
#include "absl/time/internal/cctz/src/time_zone_if.h"
#include "absl/time/internal/cctz/src/time_zone_libc.h"
#include "filters.h"
#include "src/core/ext/filters/http/client/http_client_filter.h"
#include "src/core/lib/channel/channel_args.h"
#include "src/core/lib/channel/channel_stack_builder.h"
#include "src/core/lib/config/core_configuration.h"
#include "src/core/lib/surface/builtins.h"
#include "src/core/lib/surface/channel_init.h"
#include "src/core/lib/surface/channel_stack_type.h"

void touchdown::LeaveClientOut() {}

namespace grpc_event_engine {
namespace experimental {
extern void RegisterEventEngineChannelArgPreconditioning(
    grpc_core::CoreConfiguration::Builder* builder);
}  // namespace experimental
}  // namespace grpc_event_engine

namespace grpc_core {

extern void RegisterClientAuthorityFilter(CoreConfiguration::Builder* builder);
extern void RegisterDeadlineFilter(CoreConfiguration::Builder* builder);
extern void RegisterResourceQuota(CoreConfiguration::Builder* builder);

void BuildCoreConfiguration(CoreConfiguration::Builder* builder) {
  grpc_event_engine::experimental::RegisterEventEngineChannelArgPreconditioning(
      builder);
  RegisterResourceQuota(builder);
  RegisterClientAuthorityFilter(builder);
  RegisterDeadlineFilter(builder);
  auto* stages = builder->channel_init();
  stages->RegisterStage(GRPC_CLIENT_DIRECT_CHANNEL,
                        GRPC_CHANNEL_INIT_BUILTIN_PRIORITY,
                        [](ChannelStackBuilder* builder) {
                          builder->PrependFilter(&HttpClientFilter::kFilter);
                          return true;
                        });
  RegisterBuiltins(builder);
  auto refuse = [](ChannelStackBuilder* builder) {
    if (builder->channel_args().Contains(touchdown::kServerArgument)) {
      return true;
    }
    gpr_log(GPR_ERROR,
            "this program is built without touchdown's feature `client`, which "
            "channels to other servers, and servers of other crates, need");
    return false;
  };
  stages->RegisterStage(GRPC_CLIENT_CHANNEL, INT_MAX, refuse);
  stages->RegisterStage(GRPC_SERVER_CHANNEL, INT_MAX, refuse);
}

}  // namespace grpc_core

void grpc_resolver_dns_ares_init() {}

void grpc_resolver_dns_ares_shutdown() {}

namespace absl {
ABSL_NAMESPACE_BEGIN

namespace time_internal {
namespace cctz {

// C-core notes in errors when they came up, in UTC, and knows no other time zone. That of the C
// library is always there.
std::unique_ptr<TimeZoneIf> TimeZoneIf::Load(const std::string&) {
  return std::make_unique<TimeZoneLibC>("UTC");
}

TimeZoneIf::~TimeZoneIf() {}

}  // namespace cctz
}  // namespace time_internal

// C-core's settings can be flags of a command line, too, for programs that have such flags.
namespace flags_internal {

FlagsUsageConfig GetUsageConfig() {
  FlagsUsageConfig config;
  config.normalize_filename = [](absl::string_view name) {
    return std::string(name);
  };
  return config;
}

void ReportUsageError(absl::string_view message, bool) {
  gpr_log(GPR_ERROR, "%s", std::string(message).c_str());
}

}  // namespace flags_internal
ABSL_NAMESPACE_END
}  // namespace absl
