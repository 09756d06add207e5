"""Two network namespaces with a wire between them that can be slow, and can hold what is on it.

The wire is a pair of TUN devices and a process that carries every IP packet from one to the other,
late. TCP runs from end to end, so a refused connection, a FIN, a reset and a half-closed socket
reach the other side as they would on a real network; a proxy in between would have to imitate them.
(`tc ... netem` does the same and is missing from many small kernels.)

While the process is stopped, the wire holds its packets: they wait in the queues of the devices, in both directions, and
go on as if nothing had been when it continues. None is dropped. So a radio link behaves that roams, or a virtual
switch that is moved.

The namespaces have no name: they last as long as the processes in them and leave nothing behind.
Needs /dev/net/tun and root, or as much of root as an own user namespace has: see `become_root_of_an_own_world`.
"""

import collections
import contextlib
import ctypes
import fcntl
import os
import pathlib
import select
import signal
import struct
import subprocess
import sys
import time

SERVER_ADDRESS = "192.0.2.1"  # TEST-NET-1 (RFC 5737): nobody's address
CLIENT_ADDRESS = "192.0.2.2"
INTERFACE = "wire"

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_PI = 0x1001
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True)


def adopt_orphans():
    """From now on a process whose parent ends, having been started by one of ours, is our child."""
    _check(_LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))


class SlowNetwork:
    """Adds `delay_ms` to every round trip, half of it each way.

    `server` and `client` are file descriptors of the two namespaces, for `enter`.
    """

    def __init__(self, delay_ms):
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            self.server, server_wire = _namespace(SERVER_ADDRESS, CLIENT_ADDRESS)
            self.client, client_wire = _namespace(CLIENT_ADDRESS, SERVER_ADDRESS)
        finally:
            enter(home)
            os.close(home)
        wires = (server_wire, client_wire)
        self._carrier = subprocess.Popen(
            [sys.executable, __file__, *map(str, wires), str(delay_ms / 2000)],
            pass_fds=wires,
            preexec_fn=die_with_parent,
        )
        for wire in wires:
            os.close(wire)

    def hold(self):
        """From now on no packet arrives."""
        self._carrier.send_signal(signal.SIGSTOP)
        await_state(self._carrier.pid, "T")

    def release(self):
        """What was held arrives now, and what follows it."""
        self._carrier.send_signal(signal.SIGCONT)

    def dropped(self):
        """How many packets were dropped, which ought to be none."""
        count = 0
        for namespace in (self.server, self.client):
            with inside(namespace):
                table = pathlib.Path("/proc/thread-self/net/dev").read_text()
            [numbers] = [line.split()[1:] for line in table.splitlines() if line.split()[0] == f"{INTERFACE}:"]
            count += int(numbers[3]) + int(numbers[11])
        return count

    def close(self):
        self._carrier.kill()
        self._carrier.wait()
        os.close(self.server)
        os.close(self.client)


def await_state(process, state, timeout_s=10):
    """Waits until all threads of a process are in this state, which is one of the letters of proc(5)."""
    give_up = time.monotonic() + timeout_s
    while any(_state(thread) != state for thread in pathlib.Path(f"/proc/{process}/task").iterdir()):
        if time.monotonic() > give_up:
            raise OSError(f"process {process} does not come to state {state}")
        time.sleep(0.001)


def _state(thread):
    # Behind the program's name, which may hold anything.
    return (thread / "stat").read_text().rpartition(")")[2].split()[0]


def become_root_of_an_own_world():
    """Starts this program anew as the root of a user namespace and a network namespace of its own, if it is not root.

    Returns if it is root, or if that cannot be done.
    """
    own_world = ["unshare", "--user", "--map-root-user", "--net"]
    if os.geteuid() != 0:
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            subprocess.run([*own_world, "ip", "link", "set", "lo", "up"], check=True, capture_output=True)
            os.execvp("unshare", [*own_world, "sh", "-c", 'ip link set lo up; exec "$@"', "sh", sys.executable, *sys.argv])


@contextlib.contextmanager
def inside(namespace):
    """For the calling thread: what it opens meanwhile belongs to a network namespace."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    enter(namespace)
    try:
        yield
    finally:
        enter(home)
        os.close(home)


def enter(namespace):
    """Moves the calling thread into a network namespace."""
    _check(_LIBC.setns(namespace, _CLONE_NEWNET))


def die_with_parent():
    """For `preexec_fn`: the kernel kills this process when the thread that started it ends."""
    pr_set_pdeathsig, sigkill = 1, 9
    _check(_LIBC.prctl(pr_set_pdeathsig, sigkill, 0, 0, 0))


def _namespace(own, peer):
    _check(_LIBC.unshare(_CLONE_NEWNET))
    wire = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(wire, _TUNSETIFF, struct.pack("16sH22x", INTERFACE.encode(), _IFF_TUN_NO_PI))
    for command in (
        "link set lo up",
        f"address add {own} peer {peer} dev {INTERFACE}",
        # A queue that takes what a full socket buffer sends at once: this wire is slow, not lossy.
        f"link set {INTERFACE} txqueuelen 20000 up",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    return os.open("/proc/self/ns/net", os.O_RDONLY), wire


def _check(result):
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def _carry(first, second, delay_s):
    """Carries packets between two TUN devices for ever, in order, each `delay_s` late."""
    other = {first: second, second: first}
    on_the_way = collections.deque()
    for wire in other:
        os.set_blocking(wire, False)
    while True:
        wait = max(0.0, on_the_way[0][0] - time.monotonic()) if on_the_way else None
        readable, _, _ = select.select(other, [], [], wait)
        for wire in readable:
            due = time.monotonic() + delay_s
            for _ in range(64):
                try:
                    on_the_way.append((due, other[wire], os.read(wire, 65536)))
                except BlockingIOError:
                    break
        now = time.monotonic()
        while on_the_way and on_the_way[0][0] <= now:
            _, wire, packet = on_the_way.popleft()
            os.write(wire, packet)


if __name__ == "__main__":
    _carry(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
