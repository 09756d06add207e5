"""Connections of raw HTTP/2 frames, for hostile_attacks.py: made to send as much as the loopback device takes."""

import collections
import itertools
import select
import socket
import ssl
import struct
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
ACK = END_STREAM = 1
END_HEADERS, PADDED = 4, 8
INITIAL_WINDOW_SIZE = 4
LONGEST_FRAME = 16384
COME_BACK_S = 0.01
BLOCK = 1 << 20


def frame(kind, flags, stream, content=b""):
    return len(content).to_bytes(3, "big") + struct.pack("!BBI", kind, flags, stream) + content


def literal(name, value):
    """A header that is neither indexed nor compressed."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def request(tls, method, extra=b"", path=True):
    """The header block of a request."""
    block = b"\x83" + (b"\x87" if tls else b"\x86")
    if path:
        name = b"/greeter.Greeter/" + method
        block += b"\x04" + bytes([len(name)]) + name
    # Those of the static table: :authority is 1, content-type 31.
    block += b"\x01\x09localhost" + b"\x0f\x10\x10application/grpc" + literal(b"te", b"trailers")
    return block + extra


def message(content):
    return b"\0" + struct.pack("!I", len(content)) + content


def for_streams(make, count):
    """Blocks of frames for so many streams. `make` says what a stream gets: pairs of kind with flags, and content."""
    parts = []
    for kind, flags, content in make:
        parts.append((len(content).to_bytes(3, "big") + bytes([kind, flags]), content))
    blocks, block, size = [], [], 0
    for stream in range(1, 2 * count, 2):
        number = stream.to_bytes(4, "big")
        for head, content in parts:
            block += (head, number, content)
            size += 9 + len(content)
        if size > BLOCK // 4:
            blocks.append(b"".join(block))
            block, size = [], 0
    blocks.append(b"".join(block))
    return blocks


def repeated(content):
    return content * max(1, BLOCK // 4 // len(content))


class Peer:
    """A connection to the server. `first` is sent once, then `then` again and again."""

    def __init__(self, attacker, first, then=None, settings=b"", acknowledges=True):
        self.attacker, self.acknowledges = attacker, acknowledges
        self.blocks = itertools.chain(first, itertools.cycle([then]) if then else ())
        self.out = collections.deque([memoryview(PREFACE + frame(SETTINGS, 0, 0, settings))])
        self.received, self.read_of = bytearray(), 0
        self.answers = collections.Counter()
        self.is_over = False
        self.connection = attacker.connect()
        self.connection.setblocking(False)

    def fileno(self):
        return self.connection.fileno()

    def turn(self, events):
        try:
            if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                self.read()
            self.write()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
            pass
        except OSError:
            self.close()

    @property
    def wants_to_write(self):
        if not self.out:
            block = next(self.blocks, None)
            if block is not None:
                self.out.append(memoryview(block))
        return bool(self.out)

    def write(self):
        # A few blocks, and then what the server says is read.
        for _ in range(4):
            if not self.wants_to_write:
                return
            sent = self.connection.send(self.out[0])
            self.attacker.said["bytes"] += sent
            if sent == len(self.out[0]):
                self.out.popleft()
            else:
                self.out[0] = self.out[0][sent:]

    def read(self):
        for _ in range(64):
            data = self.connection.recv(262144)
            if not data:
                self.close()
                return
            self.received += data
            self.take_frames()

    def take_frames(self):
        received, begin = self.received, 0
        while len(received) - begin >= 9:
            end = begin + 9 + int.from_bytes(received[begin : begin + 3], "big")
            if len(received) < end:
                break
            kind = received[begin + 3]
            if kind in (SETTINGS, PING) and not received[begin + 4] & ACK:
                if self.acknowledges:
                    content = bytes(received[begin + 9 : end]) if kind == PING else b""
                    # Behind what was begun, which may be within a frame.
                    self.out.insert(1 if self.out else 0, memoryview(frame(kind, ACK, 0, content)))
            elif kind == GOAWAY:
                code = int.from_bytes(received[begin + 13 : begin + 17], "big")
                text = bytes(received[begin + 17 : end]).decode(errors="replace")
                self.attacker.said["goaways"][f"{code} {text}"[:80]] += 1
            else:
                self.took(kind, received[begin + 4], bytes(received[begin:end]))
            begin = end
        del received[:begin]

    def took(self, kind, flags, whole):
        self.answers[kind] += 1

    def close(self):
        if not self.is_over:
            self.is_over = True
            self.connection.close()


class Attacker:
    def __init__(self, port, tls):
        self.port, self.tls = port, tls
        self.seconds, self.said = 0, {}
        self.context = ssl.create_default_context()
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE
        self.context.set_alpn_protocols(["h2"])

    def attack(self, attack, seconds):
        self.seconds = seconds
        self.said = {"bytes": 0, "connections": 0, "refused": 0, "ended": 0, "goaways": collections.Counter()}
        attack(self)
        return self.said

    def connect(self):
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=2)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.said["connections"] += 1
        if not self.tls:
            return plain
        try:
            return self.context.wrap_socket(plain, server_hostname="localhost")
        except OSError:
            plain.close()
            raise

    def run(self, count, make, pause_s):
        """Has `count` connections, each as `make` makes it, for as long as the attack is to last. One that ends comes back
        after `pause_s`, or not at all."""
        give_up = time.monotonic() + self.seconds
        poll, peers, due = select.epoll(), {}, [0.0] * count
        while (now := time.monotonic()) < give_up:
            while due and due[0] <= now and time.monotonic() < give_up:
                due.pop(0)
                try:
                    peer = make()
                except OSError:
                    self.said["refused"] += 1
                    if pause_s is not None:
                        due.append(time.monotonic() + pause_s)
                    continue
                peers[peer.fileno()] = peer
                poll.register(peer.fileno(), select.EPOLLIN | select.EPOLLOUT)
                if len(peers) % 16 == 0:
                    break
            for number, events in poll.poll(0 if due and due[0] <= time.monotonic() else 0.005):
                peer = peers[number]
                peer.turn(events)
                if peer.is_over:
                    # Closing it has taken it from the poll.
                    del peers[number]
                    self.said["ended"] += 1
                    if pause_s is not None:
                        due.append(time.monotonic() + pause_s)
                else:
                    wanted = select.EPOLLIN | (select.EPOLLOUT if peer.wants_to_write else 0)
                    poll.modify(number, wanted)
        for peer in peers.values():
            peer.close()
