// The functions of messages.cc for a C-core that was compiled with NDEBUG.

#define NDEBUG 1
#define TOUCHDOWN_LAYOUT release
#include "messages_of_layout.h"
