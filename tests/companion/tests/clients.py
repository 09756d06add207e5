"""Calls as it is told, and says what became of the calls.

    clients.py ADDRESS

Each line of its standard input is one of
    send PATH COUNT SECONDS    begins so many calls, each with this deadline
    await COUNT                waits until so many have ended
    cancel                     cancels what has not ended
    collect                    waits for all, and prints how many have ended with which code, as JSON
"""

import collections
import json
import sys
import time

import grpc


def main(address):
    options = [
        ("grpc.enable_retries", 0),
        # One connection: what is to be counted is sent on it, or not at all.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    calls = []
    with grpc.insecure_channel(address, options) as channel:
        grpc.channel_ready_future(channel).result(20)
        for line in sys.stdin:
            command, *arguments = line.split()
            if command == "send":
                path, count, seconds = arguments
                call = channel.unary_unary(path)
                for _ in range(int(count)):
                    # A StringValue, "hello".
                    calls.append(call.future(b"\n\x05hello", timeout=float(seconds)))
            elif command == "await":
                while sum(call.done() for call in calls) < int(arguments[0]):
                    time.sleep(0.001)
            elif command == "cancel":
                for call in calls:
                    call.cancel()
            elif command == "collect":
                codes = collections.Counter(call.code().name for call in calls)
                print(json.dumps(codes), flush=True)
                calls = []


main(*sys.argv[1:])
