"""What the Python clients share: protos, and a way to run cases by name.

A case is a function that takes a channel to the server and raises if something is not as it must be. A program of cases is
called with the server's address and the names of the cases to run, and writes a line for each that has passed.
"""

import pathlib
import sys
import traceback

import grpc

from channels import open_channel

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "interop" / "proto"))

CASES = {}
TIMEOUT_S = 30  # for calls that have no other; a call that takes as long as this hangs


def case(function):
    CASES[function.__name__] = function
    return function


def check(condition, *seen):
    if not condition:
        raise AssertionError(", ".join(map(repr, seen)))


def check_equal(seen, expected):
    check(seen == expected, seen, "is not", expected)


def replies_of(call, stream):
    """All replies of a call. A future of one reply looks much like a stream, so `stream` says which it is."""
    return list(call) if stream else [call.result(TIMEOUT_S)]


def status_of(call, stream=False):
    """Waits for the end of a call that must fail, and returns what has its code, details and trailers."""
    try:
        replies_of(call, stream)
    except (grpc.RpcError, grpc.FutureCancelledError):
        return call
    raise AssertionError("the call did not fail")


def connect(**options):
    return open_channel(sys.argv[1], **options)


def main():
    names = sys.argv[2:]
    failed = []
    for name in names:
        try:
            with connect() as channel:
                CASES[name](channel)
            print("passed", name, flush=True)
        except Exception:  # every other case is to be run
            failed.append(name)
            traceback.print_exc()
    if failed:
        sys.exit(f"failed: {' '.join(failed)}")
