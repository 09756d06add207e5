#ifndef TOUCHDOWN_WITHOUT_CLIENT_H
#define TOUCHDOWN_WITHOUT_CLIENT_H

namespace touchdown {

// Does nothing. A file that refers to it has the linker take what is defined beside it before it
// looks at C-core.
void LeaveClientOut();

}  // namespace touchdown

#endif  // TOUCHDOWN_WITHOUT_CLIENT_H
