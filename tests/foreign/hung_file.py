"""A program file that hangs when it is to be executed, as one on a card or an NFS server that does not answer.

The kernel asks before it executes the file (fanotify(7), FAN_OPEN_EXEC_PERM), and gets no answer. Needs root.
"""

import ctypes
import os
import select
import struct

_FAN_CLASS_CONTENT, _FAN_CLOEXEC = 4, 1
_FAN_MARK_ADD, _FAN_OPEN_EXEC_PERM, _AT_FDCWD = 1, 0x40000, -100
_FAN_ALLOW = 1
_EVENT = "=IBBHQii"
_LIBC = ctypes.CDLL(None, use_errno=True)


class HungFile:
    """From now on whoever executes the file hangs, until `close`."""

    def __init__(self, path):
        self._events = _check(_LIBC.fanotify_init(_FAN_CLASS_CONTENT | _FAN_CLOEXEC, os.O_RDONLY))
        mask = ctypes.c_uint64(_FAN_OPEN_EXEC_PERM)
        _check(_LIBC.fanotify_mark(self._events, _FAN_MARK_ADD, mask, _AT_FDCWD, os.fsencode(path)))
        self._held = []

    def await_victim(self, patience_s):
        """Waits until somebody hangs; returns the process."""
        if not select.select([self._events], [], [], patience_s)[0]:
            raise TimeoutError(f"nobody executes the file within {patience_s} s")
        *_, file, process = struct.unpack_from(_EVENT, os.read(self._events, struct.calcsize(_EVENT)))
        self._held.append(file)
        return process

    def close(self):
        """Lets all go on who hang."""
        while self._held:
            file = self._held.pop()
            os.write(self._events, struct.pack("=iI", file, _FAN_ALLOW))
            os.close(file)
        if self._events is not None:
            os.close(self._events)
            self._events = None


def _check(result):
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
