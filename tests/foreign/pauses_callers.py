"""Calls that begin when they are told to, over channels of grpcio, each with a connection of its own.

It runs as a child of pauses.py. Each line of standard input is a command in JSON, and is answered with a line:

    {"do": "connect"}                                            a call on each channel, and waits for the answers
    {"do": "call", "each": 5, "think_ms": 0, "bytes": 0, "answers": 1}   begins 5 calls on each channel
    {"do": "wait"}                                               waits for all calls
    {"do": "finish"}                                             waits for all calls, says what became of them, and ends

There is no retry policy. Transparent retries are on: a call is sent again only if no server can have acted on it. Calls wait
for a connection (`wait_for_ready`), because a server that is started again is not there for a moment; a call that was
sent, and whose connection ends, fails all the same.
"""

import argparse
import json
import sys

import grpc

from greetings import GREETER, hello_reply, hello_request, many_hellos_request

OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 100),
    ("grpc.max_receive_message_length", -1),
]


def open_channel(address, ca):
    if ca is None:
        return grpc.insecure_channel(address, options=OPTIONS)
    with open(ca, "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    return grpc.secure_channel(address, credentials, options=OPTIONS)


class Call:
    def __init__(self, channel, name, think_ms, answers, deadline_s):
        self._expected = [hello_reply(name)] * answers
        self._is_stream = answers > 1
        if self._is_stream:
            method = channel.unary_stream(GREETER + "SayManyHellos")
            self._call = method(many_hellos_request(name, answers), timeout=deadline_s, wait_for_ready=True)
        else:
            method = channel.unary_unary(GREETER + "SayHello")
            self._call = method.future(hello_request(name, think_ms), timeout=deadline_s, wait_for_ready=True)

        self._problem = "not awaited"

    def outcome(self):
        """None if all is well, or what is not."""
        if self._problem == "not awaited":
            self._problem = self._await()
        return self._problem

    def _await(self):
        try:
            replies = list(self._call) if self._is_stream else [self._call.result()]
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
        return None if replies == self._expected else "a wrong answer"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("address")
    parser.add_argument("--channels", type=int, required=True)
    parser.add_argument("--deadline-s", type=float, required=True)
    parser.add_argument("--ca", help="speak TLS, and trust the certificates in this file")
    options = parser.parse_args()

    channels = [open_channel(options.address, options.ca) for _ in range(options.channels)]
    calls = []

    def begin(each, think_ms, length, answers):
        for number in range(each):
            for place, channel in enumerate(channels):
                name = f"channel {place} call {number} ".ljust(length, "x")
                calls.append(Call(channel, name, think_ms, answers, options.deadline_s))

    for line in sys.stdin:
        command = json.loads(line)
        said = {"calls": 0}
        if command["do"] == "connect":
            begin(1, 0, 0, 1)
            said["problems"] = [problem for call in calls if (problem := call.outcome())]
        elif command["do"] == "call":
            begin(command["each"], command["think_ms"], command["bytes"], command["answers"])
        else:
            said["problems"] = [problem for call in calls if (problem := call.outcome())]
        said["calls"] = len(calls)
        if command["do"] == "finish":
            for channel in channels:
                channel.close()
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
