"""caller.py TARGET CALLS_A_SECOND: calls the test service over stock gRPC, through the bootstrap that GRPC_XDS_BOOTSTRAP
names. Prints `ready` after the first answer, and once standard input ends, one line of JSON."""

import collections
import json
import sys
import threading
import time

import grpc

target, rate = sys.argv[1], float(sys.argv[2])
channel = grpc.insecure_channel(target)
raw = lambda message: message
call = channel.unary_unary("/portolan.chaos.v1.Echo/Call", request_serializer=raw, response_deserializer=raw)
call(b"", timeout=60, wait_for_ready=True)
print("ready", flush=True)

ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
calls, errors, open_calls = 0, collections.Counter(), []
start = time.monotonic()
while not ended.is_set():
    open_calls.append(call.future(b"", timeout=5))
    calls += 1
    done = [one for one in open_calls if one.done()]
    open_calls = [one for one in open_calls if not one.done()]
    errors.update(f"{one.code().name}: {one.details()}" for one in done if one.exception())
    time.sleep(max(0.0, start + calls / rate - time.monotonic()))
errors.update(f"{one.code().name}: {one.details()}" for one in open_calls if one.exception())
print(json.dumps({"calls": calls, "failed": sum(errors.values()), "errors": dict(errors)}), flush=True)
