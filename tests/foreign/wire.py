"""What really went over the wire: which requests a client sent, and which of them were answered.

A client tells that a call failed, but not whether it ever sent it. On GOAWAY, both gRPC C-core and grpc-js fail calls
that they have accepted from the program and not yet written to the socket; with their transparent retries off, the
program sees UNAVAILABLE for a call of which no server can know. Here the HTTP/2 frames decide: a request whose
HEADERS are on the wire and whose stream the server did not end with its trailers is lost.

Needs tcpdump, and root.
"""

import signal
import struct
import subprocess
import sys

_ETHERNET_HEADER = {1: 14, 12: 0, 101: 0}  # by link type: Ethernet (loopback too), raw IP
_HEADERS, _DATA, _GOAWAY, _RST_STREAM, _PING = 1, 0, 7, 3, 6
_END_STREAM = 1
_PREFACE_LENGTH = 24
_FIN, _SYN, _RST = 1, 2, 4


class Capture:
    """Writes all that passes `interface` to or from `port` to `path` until it is closed.

    `packet_length` is the longest packet's; tcpdump's buffer has room for that much for each packet.
    """

    def __init__(self, interface, packet_length, port, path, prepare):
        self._tcpdump = subprocess.Popen(
            [
                *("tcpdump", "-i", interface, "-s", str(packet_length), "-B", "131072", "-Z", "root"),
                *("--immediate-mode", "-U", "-w", path, f"tcp port {port}"),
            ],
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=prepare,
        )
        self._said = self._tcpdump.stderr.readline()
        while "listening on" not in self._said and self._tcpdump.poll() is None:
            self._said = self._tcpdump.stderr.readline()
        if self._tcpdump.poll() is not None:
            raise OSError(f"tcpdump: {self._said}")

    def close(self):
        self._tcpdump.send_signal(signal.SIGINT)
        self._tcpdump.wait()


class Connection:
    """One TCP connection, with what its HTTP/2 frames say."""

    def __init__(self, name):
        self.name = name
        self.asked = {}  # stream: when its HEADERS passed
        self.answered = set()
        self.events = []  # (time, "client" or "server", text)
        self._streams = {"client": _Reassembly(), "server": _Reassembly()}
        self._preface_seen = False

    @property
    def has_gaps(self):
        """Whether the capture has later bytes of this connection, but not all earlier ones."""
        return any(reassembly.early for reassembly in self._streams.values())

    @property
    def unanswered(self):
        return [stream for stream in self.asked if stream not in self.answered]

    def segment(self, time, side, flags, sequence, payload):
        reassembly = self._streams[side]
        if flags & _SYN:
            reassembly.expect(sequence + 1)
        reassembly.add(sequence, payload)
        if side == "client" and not self._preface_seen:
            if len(reassembly.ready) < _PREFACE_LENGTH:
                return
            self._preface_seen = True
            del reassembly.ready[:_PREFACE_LENGTH]
        for kind, frame_flags, stream, content in _frames(reassembly.ready):
            self._frame(time, side, kind, frame_flags, stream, content)
        for flag, text in ((_FIN, "FIN"), (_RST, "RST")):
            if flags & flag:
                self.events.append((time, side, text))

    def _frame(self, time, side, kind, flags, stream, content):
        if kind == _HEADERS and side == "client":
            self.asked.setdefault(stream, time)
        if kind in (_HEADERS, _DATA) and side == "server" and flags & _END_STREAM:
            self.answered.add(stream)
        if kind == _GOAWAY:
            last_stream, code = struct.unpack_from("!II", content)
            self.events.append((time, side, f"GOAWAY last stream {last_stream:#x} code {code}"))
        if kind == _PING:
            self.events.append((time, side, "PING ack" if flags & 1 else "PING"))
        if kind == _RST_STREAM:
            self.events.append((time, side, f"RST_STREAM {stream} code {int.from_bytes(content, 'big')}"))

    def story(self):
        """How the connection ended, in milliseconds since the server's first GOAWAY, and the unanswered requests."""
        goaways = [time for time, side, text in self.events if side == "server" and text.startswith("GOAWAY")]
        begin = goaways[0] if goaways else min(self.asked.values(), default=0)
        lost = [(self.asked[stream], "client", f"HEADERS {stream}, never answered") for stream in self.unanswered]
        late = [event for event in self.events if event[0] >= begin]
        lines = [f"connection from port {self.name}:"]
        for time, side, text in sorted(late + lost):
            if not (text == "RST" and lines[-1].endswith("RST")):
                lines.append(f"  {1000 * (time - begin):9.3f} {side} {text}")
        return "\n".join(lines)


class _Reassembly:
    """One direction of a TCP connection: bytes in order, whatever order the segments came in."""

    def __init__(self):
        self.ready = bytearray()
        self._next = None
        self.early = {}

    def expect(self, sequence):
        self._next = sequence % 2**32

    def add(self, sequence, payload):
        if not payload or self._next is None:
            return
        self.early[sequence] = max(self.early.get(sequence, b""), payload, key=len)
        while True:
            for start in sorted(self.early, key=lambda start: (start - self._next) % 2**32, reverse=True):
                known = (self._next - start) % 2**32
                if known < 2**31:
                    break
            else:
                return
            fresh = self.early.pop(start)[known:]
            self.ready += fresh
            self._next = (self._next + len(fresh)) % 2**32


def _frames(ready):
    begin = 0
    while len(ready) - begin >= 9:
        length = int.from_bytes(ready[begin : begin + 3], "big")
        end = begin + 9 + length
        if len(ready) < end:
            break
        stream = int.from_bytes(ready[begin + 5 : begin + 9], "big") & 0x7FFFFFFF
        yield ready[begin + 3], ready[begin + 4], stream, bytes(ready[begin + 9 : end])
        begin = end
    del ready[:begin]


def _segments(path):
    with open(path, "rb") as file:
        header = file.read(24)
        skip = _ETHERNET_HEADER[struct.unpack_from("<I", header, 20)[0]]
        while len(head := file.read(16)) == 16:
            seconds, microseconds, length, _ = struct.unpack("<IIII", head)
            packet = file.read(length)[skip:]
            if len(packet) < 20 or packet[0] >> 4 != 4:
                continue
            total = struct.unpack_from("!H", packet, 2)[0] or len(packet)  # 0: larger than 64 KiB, on loopback
            tcp = packet[(packet[0] & 15) * 4 : total]
            source, target, sequence = struct.unpack_from("!HHI", tcp)
            yield seconds + microseconds / 1e6, source, target, tcp[13], sequence, tcp[(tcp[12] >> 4) * 4 :]


def read(path, server_port):
    """The connections in a capture, in the order in which they began."""
    began, current = [], {}
    for time, source, target, flags, sequence, payload in _segments(path):
        side, name = ("client", source) if target == server_port else ("server", target)
        if side == "client" and flags & _SYN and not (name in current and not current[name].events):
            current[name] = Connection(name)
            began.append(current[name])
        if name in current:
            current[name].segment(time, side, flags, sequence, payload)
    return began


def main():
    path, port = sys.argv[1:]
    for connection in read(path, int(port)):
        if connection.asked:
            print(f"{connection.name}: {len(connection.asked)} requests, {len(connection.unanswered)} not answered")
            print(connection.story())


if __name__ == "__main__":
    main()
