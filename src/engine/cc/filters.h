// What of C-core's parts a channel is made of.

#ifndef TOUCHDOWN_FILTERS_H
#define TOUCHDOWN_FILTERS_H

#include "src/core/lib/config/core_configuration.h"

namespace touchdown {

// Touchdown's servers have this channel argument.
constexpr const char* kServerArgument = "touchdown.server";

// Has C-core build touchdown's servers with a filter of its own in place of four of C-core's.
void ReplaceFilters(grpc_core::CoreConfiguration::Builder* builder);

}  // namespace touchdown

#endif  // TOUCHDOWN_FILTERS_H
