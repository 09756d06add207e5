#!/usr/bin/env python3
"""What does being observed cost? Throughput as a ratio to a bare server, in turns.

    cost.py --server PATH [--turns 6] [--calls 60000]

PATH is `cost_server`: cargo build --release -p touchdown-observe --features otel --example cost_server. Needs h2load (Debian's
nghttp2-client). Each turn starts a server of each mode, one after the other, and calls it at 2 connections with 32 calls each, and at 50 with 10.
"""

import argparse
import os
import re
import socket
import statistics
import subprocess
import tempfile
import time

MODES = ("bare", "metrics", "all")
LOADS = ((2, 32), (50, 10))
MESSAGE = b"\0\0\0\0\x05\x0a\x03you"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def measure(options, mode, load, body):
    port = free_port()
    environment = dict(os.environ, RUST_LOG="off")
    with subprocess.Popen([options.server, mode, f"127.0.0.1:{port}"], env=environment) as server:
        try:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except ConnectionRefusedError:
                    time.sleep(0.02)
            for calls in (5000, options.calls):
                command = ["h2load", f"-n{calls}", f"-c{load[0]}", f"-m{load[1]}", "-t1", "-d", body]
                command += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
                command.append(f"http://127.0.0.1:{port}/greeter.Greeter/SayHello")
                told = subprocess.run(command, capture_output=True, check=True, text=True).stdout
            if f"{options.calls} succeeded" not in told:
                raise SystemExit(f"calls of the server {mode} failed:\n{told}")
            return float(re.search(r"([0-9.]+) req/s", told).group(1))
        finally:
            server.terminate()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True)
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--calls", type=int, default=60000)
    options = parser.parse_args()
    with tempfile.NamedTemporaryFile() as body:
        body.write(MESSAGE)
        body.flush()
        for load in LOADS:
            seen = {mode: [] for mode in MODES}
            for _ in range(options.turns):
                for mode in MODES:
                    seen[mode].append(measure(options, mode, load, body.name))
            bare = statistics.median(seen["bare"])
            for mode in MODES:
                median = statistics.median(seen[mode])
                print(f"{load[0]}x{load[1]} {mode:8} {median:8.0f} calls/s, {median / bare:.3f}x")


if __name__ == "__main__":
    main()
