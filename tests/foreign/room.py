"""A visitor of examples/room_server.rs.

`room.py ADDRESS NAME` enters the room, and writes a line for everything it hears: who says it, and what. It says what
it is told on standard input, line by line, and leaves at its end; a line that begins with "/dictate " and a number is
that many lines dictated, whose count it writes. Last it writes how its stream has ended.
"""

import queue
import sys
import threading

import grpc
from greetings import string_field_1, varint

DEADLINE_S = 60


def line(speaker, text):
    content = text.encode()
    return string_field_1(speaker) + b"\x12" + varint(len(content)) + content


def fields(message):
    """The two short texts of a line."""
    texts = {1: "", 2: ""}
    while message:
        number, length = message[0] >> 3, message[1]
        texts[number] = message[2 : 2 + length].decode()
        message = message[2 + length :]
    return texts[1], texts[2]


def tell(*words):
    print(*words, flush=True)


def listen(talk):
    try:
        for message in talk:
            tell("heard", *fields(message))
    except grpc.RpcError:
        pass
    tell("end", talk.code().name)


def main(address, name):
    with grpc.insecure_channel(address) as channel:
        said = queue.SimpleQueue()
        talk = channel.stream_stream("/room.Room/Talk")(iter(said.get, None), timeout=DEADLINE_S)
        dictate = channel.stream_unary("/room.Room/Dictate")
        listener = threading.Thread(target=listen, args=(talk,))
        listener.start()
        for text in map(str.strip, sys.stdin):
            if text.startswith("/dictate "):
                lines = (line(name, str(it)) for it in range(int(text.split()[1])))
                minutes = dictate(lines, timeout=DEADLINE_S)
                tell("minutes", minutes[1] if minutes else 0)
            else:
                said.put(line(name, text))
        said.put(None)
        listener.join()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
