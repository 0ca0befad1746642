"""Runs every command of README.md and docs/*.md as written, from the root of the clone.

A fenced block `sh` is run by bash and must succeed. What may stand after `sh`:
  background       runs until its page ends; the next block starts once its output shows the text of `until="…"`
  fails            must fail
  needs="kubelet"  is not run: it needs what the marker names
Blocks whose whole text is in PORTOLAN_DOCS_ALREADY (lines) were run by another step.
"""

import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^```sh(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.M | re.S)
LIMIT_SECONDS = 420


def start(body, output):
    return subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", body], cwd=ROOT, stdin=subprocess.DEVNULL,
        stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
    )


def end(process):
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(text, process, path):
    deadline = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < deadline:
        if text in path.read_text(errors="replace"):
            return
        if process.poll() is not None:
            raise RuntimeError(f"ended with status {process.returncode} before it printed {text!r}")
        time.sleep(0.1)
    raise RuntimeError(f"did not print {text!r} within {LIMIT_SECONDS} s")


def run_page(page, scratch, already):
    ran, running = 0, []
    try:
        for number, block in enumerate(FENCE.finditer(page.read_text())):
            words = dict(word.partition("=")[::2] for word in shlex.split(block["info"]))
            body = block["body"]
            line = page.read_text()[: block.start()].count("\n") + 1
            where = f"{page.relative_to(ROOT)}:{line}"
            if "needs" in words:
                print(f"{where}: not run, it needs a {words['needs']}")
                continue
            if body.strip() in already:
                continue
            print(f"{where}: {body.strip()}", flush=True)
            path = scratch / f"{page.stem}-{number}.log"
            with path.open("w") as output:
                process = start(body, output)
            try:
                if "background" in words:
                    running.append(process)
                    wait_for(words["until"], process, path)
                else:
                    status = process.wait(LIMIT_SECONDS)
                    if (status != 0) != ("fails" in words):
                        raise RuntimeError(f"exit status {status}")
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                end(process)
                print(path.read_text(errors="replace")[-4000:])
                sys.exit(f"{where}: {error}")
            ran += 1
    finally:
        for process in reversed(running):
            end(process)
    return ran


def main():
    already = set(filter(None, os.environ.get("PORTOLAN_DOCS_ALREADY", "").split("\n")))
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    with tempfile.TemporaryDirectory() as scratch:
        ran = sum(run_page(page, pathlib.Path(scratch), already) for page in pages)
    print(f"documents: {ran} commands ran as written")


main()
