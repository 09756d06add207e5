#!/usr/bin/env python3
"""A real Prometheus looks at a server under load, and at its stop.

    prometheus.py --server PATH [--prometheus PATH] [--seconds 20]

Starts `observed_server` (cargo build -p touchdown-observed) and Debian's `prometheus`, which scrapes it every second, and calls it from
several threads. Then it asks Prometheus every query of deploy/grafana/touchdown.json (`deploy/check --prometheus`), stops the server
while calls are in flight, and compares: Prometheus must have seen the phase `draining`, and its last counts must be those of
the callers. `/readyz` must have said 503, and grpc.health.v1 NOT_SERVING, before a connection was refused.
"""

import argparse
import collections
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

HERE = os.path.dirname(os.path.abspath(__file__))
CHECK = os.path.join(HERE, "..", "..", "deploy", "check")
CALLERS = 4
DEADLINE_S = 10
# What a caller of Python's sees, and how Prometheus' labels spell it.
CODES = {"OK": "OK", "INVALID_ARGUMENT": "InvalidArgument", "CANCELLED": "Canceled", "UNAVAILABLE": "Unavailable"}


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def message(name, think_ms):
    """A HelloRequest: name = 1, think_ms = 2."""
    data = b"\x0a" + bytes([len(name)]) + name.encode() + b"\x10"
    while think_ms > 0x7F:
        data += bytes([think_ms & 0x7F | 0x80])
        think_ms >>= 7
    return data + bytes([think_ms])


class Callers:
    """Count what they get. A call that never left is none: its connection was refused."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address, [("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0)])
        self.counts = collections.Counter()
        self.refused_at = None
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(number,), daemon=True) for number in range(CALLERS)]

    def start(self):
        for thread in self.threads:
            thread.start()

    def run(self, number):
        call = self.channel.unary_unary("/greeter.Greeter/SayHello")
        for turn in range(10**9):
            if self.stopping.is_set():
                return
            # Every tenth is refused by the handler.
            data = b"" if turn % 10 == 9 else message("you", 20 * number)
            try:
                call(data, timeout=DEADLINE_S)
                status = "OK"
            except grpc.RpcError as error:
                status = error.code().name
                if status == "UNAVAILABLE":
                    with self.lock:
                        self.refused_at = self.refused_at or time.monotonic()
                    if "shutting down" not in error.details():
                        # It was not sent: nobody listens, or the connection says GOAWAY.
                        return
            with self.lock:
                self.counts[status] += 1

    def call_for(self, seconds):
        """One call that is in flight for so long."""
        call = self.channel.unary_unary("/greeter.Greeter/SayHello")
        thread = threading.Thread(target=lambda: call(message("you", int(1000 * seconds)), timeout=2 * seconds))
        thread.start()
        self.threads.append(thread)
        self.counts["OK"] += 1

    def join(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()


class Watcher(threading.Thread):
    """When readiness changed, as HTTP and as gRPC say it."""

    def __init__(self, address, door):
        super().__init__(daemon=True)
        self.health = health_pb2_grpc.HealthStub(grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]))
        self.door = door
        self.not_ready_at = self.not_serving_at = None
        self.start()

    def run(self):
        while self.not_ready_at is None or self.not_serving_at is None:
            if status_of(f"http://{self.door}/readyz") == 503 and self.not_ready_at is None:
                self.not_ready_at = time.monotonic()
            try:
                answer = self.health.Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S)
            except grpc.RpcError:
                return
            if answer.status != health_pb2.HealthCheckResponse.SERVING and self.not_serving_at is None:
                self.not_serving_at = time.monotonic()
            time.sleep(0.005)


def status_of(url):
    try:
        with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def ask(prometheus, query, at=None):
    parameters = {"query": query} | ({"time": at} if at else {})
    with urllib.request.urlopen(f"{prometheus}/api/v1/query?{urllib.parse.urlencode(parameters)}", timeout=30) as answer:
        return json.load(answer)["data"]["result"]


def eventually(what, look, limit=60):
    deadline = time.monotonic() + limit
    while not look():
        if time.monotonic() > deadline:
            sys.exit(f"not within {limit} s: {what}")
        time.sleep(0.1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True, metavar="PATH", help="observed_server")
    parser.add_argument("--prometheus", default="prometheus", metavar="PATH", help="Debian's package has it")
    parser.add_argument("--promtool", default="promtool", metavar="PATH")
    parser.add_argument("--seconds", type=float, default=20, help="of load before the stop; 20 without it")
    options = parser.parse_args()
    address, door, port = (f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}", free_port())
    prometheus = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        config = os.path.join(folder, "prometheus.yml")
        with open(config, "w", encoding="utf-8") as file:
            job = {"job_name": "greeter", "scrape_interval": "1s", "static_configs": [{"targets": [door]}]}
            json.dump({"scrape_configs": [job]}, file)
        needed = os.path.join(folder, "needed")
        with open(needed, "w", encoding="utf-8"):
            pass
        environment = dict(os.environ, OTEL_SDK_DISABLED="true", RUST_LOG="error,touchdown::lifecycle=info")
        server = subprocess.Popen([options.server, address, door, needed], env=environment)
        storage = ["--storage.tsdb.path", os.path.join(folder, "data"), "--web.listen-address", f"127.0.0.1:{port}"]
        watcher = subprocess.Popen([options.prometheus, "--config.file", config, "--log.level=error", *storage])
        try:
            run(options, server, address, door, prometheus)
        finally:
            for process in (server, watcher):
                process.kill()
                process.wait()


def run(options, server, address, door, prometheus):
    eventually("the server is ready", lambda: status_of(f"http://{door}/readyz") == 200)
    with urllib.request.urlopen(f"http://{door}/metrics", timeout=DEADLINE_S) as answer:
        checked = subprocess.run([options.promtool, "check", "metrics"], input=answer.read(), check=False)
    if checked.returncode != 0:
        sys.exit("promtool check metrics finds fault with /metrics")
    eventually("Prometheus scrapes", lambda: status_of(f"{prometheus}/-/ready") == 200)
    callers = Callers(address)
    callers.start()
    time.sleep(options.seconds)
    subprocess.run([CHECK, "--promtool", options.promtool, "--prometheus", prometheus], check=True)
    ready = Watcher(address, door)
    # Longer than the lame duck and two scrapes.
    callers.call_for(5)
    time.sleep(0.5)
    began = time.monotonic()
    server.send_signal(signal.SIGTERM)
    code = server.wait(60)
    ready.join(10)
    callers.join()
    report(callers, ready, began, code, prometheus)


def report(callers, ready, began, code, prometheus):
    faults = []
    if code != 0:
        faults.append(f"the server's exit code is {code}")
    seen = ask(prometheus, 'max_over_time(touchdown_phase{phase="draining"}[2m])')
    if [it["value"][1] for it in seen] != ["1"]:
        faults.append(f"no scrape saw the drain: {seen}")
    moments = {"/readyz": ready.not_ready_at, "grpc.health.v1": ready.not_serving_at}
    for name, moment in moments.items():
        if moment is None or callers.refused_at is not None and moment > callers.refused_at:
            faults.append(f"{name} did not say so before calls were refused")
    last = ask(prometheus, 'last_over_time(grpc_server_handled_total{grpc_service="greeter.Greeter",grpc_method="SayHello"}[2m])')
    counted = {it["metric"]["grpc_code"]: int(it["value"][1]) for it in last if it["value"][1] != "0"}
    expected = {CODES[name]: count for name, count in callers.counts.items()}
    if counted != expected:
        faults.append(f"Prometheus has {counted}, the callers {expected}")
    after = {name: moment and round(1000 * (moment - began)) for name, moment in moments.items()}
    print(f"calls: {expected}, as Prometheus has them: {counted == expected}; not ready after {after} ms; exit code {code}")
    if faults:
        sys.exit("; ".join(faults))
    print("PASSED")


if __name__ == "__main__":
    main()
