"""One call without TLS, at the address of a server that has it. Says how it ended, and stays for a while.

    python without_tls.py ADDRESS SECONDS
"""

import sys
import time

import grpc

address, seconds = sys.argv[1], float(sys.argv[2])
channel = grpc.insecure_channel(address)
hello = channel.unary_unary("/greeter.Greeter/SayHello")
try:
    hello(b"", timeout=seconds)
    print("OK")
except grpc.RpcError as error:
    print(error.code().name)
# It connects again for a call that waits.
try:
    hello(b"", timeout=seconds, wait_for_ready=True)
except grpc.RpcError as error:
    print(error.code().name)
