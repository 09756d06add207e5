// The functions of messages.cc for a C-core that was compiled without NDEBUG.

#undef NDEBUG
#define TOUCHDOWN_LAYOUT debug
#include "messages_of_layout.h"
