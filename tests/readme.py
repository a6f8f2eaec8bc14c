"""Runs every command of README.md as a reader would, one after the other, and ends what it started.

Blocks of `sh` are commands, blocks of `python` are programs; the first block of commands starts the node and goes on
beside the rest. Where the text says `<!-- kill -9 -->` the node is killed and started again. Only the addresses and the
folder are other ones, so that a node that runs on this machine is not disturbed.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Commands that cannot be run from within themselves.
RUN_ELSEWHERE = {"./test.sh": "this very run"}
START_SECONDS = 900
BLOCK_SECONDS = 300


def blocks(text):
    """(kind, text) of each block to run, and ("kill", "") for each kill."""
    pattern = re.compile(r"^```(\w+)\n(.*?)^```$|^<!-- (kill) -9 -->$", re.M | re.S)
    for match in pattern.finditer(text):
        kind = match[1] or match[3]
        if kind in ("sh", "python", "kill"):
            yield kind, match[2] or ""


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Reader:
    def __init__(self, folder):
        self.http, self.ops = free_port(), free_port()
        self.variables = Path(folder) / "variables"
        self.environment = {
            **os.environ,
            "KLATCH_HTTP_ADDR": f"127.0.0.1:{self.http}",
            "KLATCH_OPS_ADDR": f"127.0.0.1:{self.ops}",
            "KLATCH_STORE": f"file:{folder}/klatch-data",
        }
        self.node = None
        self.start_command = None

    def moved(self, text):
        """The text with the addresses of this run; the commands say where a node is, and the node is here."""
        return text.replace("127.0.0.1:8080", f"127.0.0.1:{self.http}").replace("127.0.0.1:9090", f"127.0.0.1:{self.ops}")

    def start(self, command):
        self.start_command = command
        self.node = subprocess.Popen(
            ["bash", "-euc", command],
            cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )
        alarm = signal.signal(signal.SIGALRM, lambda *_: sys.exit("the node did not say where it listens"))
        signal.alarm(START_SECONDS)
        for line in self.node.stdout:
            print(line, end="")
            if "Ctrl-C stops it" in line:
                break
        else:
            sys.exit(f"the node ended with {self.node.wait()} before it said where it listens")
        signal.alarm(0)
        signal.signal(signal.SIGALRM, alarm)

    def kill(self):
        os.killpg(self.node.pid, signal.SIGKILL)
        self.node.wait()
        self.start(self.start_command)

    def stop(self):
        """As Ctrl-C in its terminal."""
        os.killpg(self.node.pid, signal.SIGINT)
        code = self.node.wait(timeout=BLOCK_SECONDS)
        if code != 0:
            sys.exit(f"the node ended with {code}")

    def run(self, kind, text):
        print(f"--- {kind}\n{text}", flush=True)
        if kind == "python":
            command = [ROOT / "target/venv/bin/python", "-c", self.moved(text)]
        else:
            before = f". {self.variables}\n" if self.variables.exists() else ""
            after = f"\nexport -p > {self.variables}\n"
            command = ["bash", "-euo", "pipefail", "-c", before + self.moved(text) + after]
        environment = {**self.environment, **self.exported()}
        done = subprocess.run(command, cwd=ROOT, env=environment, timeout=BLOCK_SECONDS, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            sys.exit(f"this block of README.md ended with {done.returncode}:\n{text}")

    def exported(self):
        if not self.variables.exists():
            return {}
        shown = subprocess.run(["bash", "-c", f". {self.variables}; env -0"], stdout=subprocess.PIPE, check=True).stdout
        pairs = (pair.split("=", 1) for pair in shown.decode().split("\0") if "=" in pair)
        return {name: value for name, value in pairs if name.startswith("KLATCH_")}


def main():
    found = list(blocks((ROOT / "README.md").read_text()))
    commands = [text for kind, text in found if kind == "sh"]
    if len(commands) < 4 or not any(kind == "kill" for kind, _ in found):
        sys.exit("README.md does not show what it should: a start, a turn, a chat, a kill")
    with tempfile.TemporaryDirectory(prefix="klatch-readme-") as folder:
        reader = Reader(folder)
        try:
            for kind, text in found:
                if text.strip() in RUN_ELSEWHERE:
                    continue
                if reader.node is None:
                    reader.start(text)
                elif kind == "kill":
                    reader.kill()
                else:
                    reader.run(kind, text)
            reader.stop()
        finally:
            if reader.node is not None and reader.node.poll() is None:
                os.killpg(reader.node.pid, signal.SIGKILL)
    print(f"{len(found)} blocks of README.md did what they say")


main()
