"""Calls Echo over xDS at a steady rate, and prints what became of the calls as JSON lines.

The first line says which client this is. Each later line counts what ended since the one before, by backend or by error.
"""

import argparse
import collections
import itertools
import json
import threading
import time

import grpc

METHOD = "/portolan.chaos.v1.Echo/Call"
# Of every second call: a route tells them by it.
LANE = (("lane", "blue"),)
PRINT_EVERY = 0.1


def backend_of(reply):
    """`CallReply.backend`: field 1, a string shorter than 128 bytes."""
    return reply[2 : 2 + reply[1]].decode()


class Counts:
    def __init__(self):
        self.lock = threading.Lock()
        self.reset()

    def reset(self):
        self.answered, self.failed = collections.Counter(), collections.Counter()

    def ended(self, call):
        with self.lock:
            if call.code() == grpc.StatusCode.OK:
                self.answered[backend_of(call.result())] += 1
            else:
                self.failed[f"{call.code().name}: {call.details()}"] += 1

    def take(self):
        with self.lock:
            taken = {"answered": self.answered, "failed": self.failed}
            self.reset()
            return taken


def say(line):
    print(json.dumps(line), flush=True)


def say_counts(counts):
    while True:
        time.sleep(PRINT_EVERY)
        say(counts.take())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", required=True)
    parser.add_argument("--rate", type=float, required=True, help="calls per second")
    parser.add_argument("--timeout", type=float, required=True, help="of a call, in seconds")
    options = parser.parse_args()

    say({"client": "grpcio", "version": grpc.__version__})
    counts = Counts()
    threading.Thread(target=say_counts, args=[counts], daemon=True).start()
    call = grpc.insecure_channel(options.target).unary_unary(METHOD)
    due = time.monotonic()
    for number in itertools.count():
        metadata = LANE if number % 2 else ()
        call.future(b"", timeout=options.timeout, metadata=metadata).add_done_callback(counts.ended)
        due = max(due + 1 / options.rate, time.monotonic() - 1)
        time.sleep(max(0, due - time.monotonic()))


main()
