"""A limit on the memory of processes, as a machine with as little has it: a memory cgroup. Needs root."""

import contextlib
import os
import pathlib
import time


class SmallMachine:
    """Processes that have called `enter` have this much memory, all together, page cache included."""

    def __init__(self, memory_mb):
        folder, limit = _controller()
        self._folder = folder / f"touchdown-{os.getpid()}"
        self._folder.mkdir()
        (self._folder / limit).write_text(str(memory_mb << 20))
        with contextlib.suppress(OSError):  # a kernel without swap has no such file
            (self._folder / "memory.swap.max").write_text("0")

    def enter(self):
        """For `preexec_fn`."""
        (self._folder / "cgroup.procs").write_text(str(os.getpid()))

    def killed(self):
        """How many processes the kernel has killed for want of memory."""
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(FileNotFoundError):
                lines = dict(line.split() for line in (self._folder / name).read_text().splitlines())
                return int(lines["oom_kill"])
        raise OSError("this kernel does not count what it kills")

    def peak_mb(self):
        """The most that was ever used, page cache included; None if the kernel does not say."""
        for name in ("memory.peak", "memory.max_usage_in_bytes"):
            with contextlib.suppress(FileNotFoundError):
                return int((self._folder / name).read_text()) / (1 << 20)
        return None

    def close(self):
        # The last process may not be gone yet.
        for _ in range(100):
            try:
                self._folder.rmdir()
                return
            except OSError:
                time.sleep(0.05)


def _controller():
    first, second = pathlib.Path("/sys/fs/cgroup/memory"), pathlib.Path("/sys/fs/cgroup")
    if first.exists():
        return first, "memory.limit_in_bytes"
    if "memory" in (second / "cgroup.subtree_control").read_text().split():
        return second, "memory.max"
    raise OSError("no cgroup for memory")
