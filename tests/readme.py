"""Runs every command of a page as a reader would, one after the other, and ends what it started: `readme.py [PAGE…]`.

Blocks of `sh` are commands, blocks of `python` are programs. A block that ends with a node in the foreground starts it, and the
node goes on beside the rest. Comments of the page's source say what cannot be seen in a block:

    <!-- kill -9 -->          the node is killed and started again
    <!-- Ctrl-C -->           the node is stopped
    <!-- not run: WHY -->     the next block is not run here; WHY is one of NOT_RUN
    <!-- N are not run -->    how many those are, so that none becomes one unnoticed
    <!-- prints -->           the next block is what the commands before it print, with … for anything

What is not as the reader has it: the addresses of a node that is alone (free ports, so that one that runs on this machine is not
disturbed), the folder `~/my-bot`, and the model servers (STAND_INS): each is `fake-model` of tests/ on a free port, which
repeats what it is told. A stand-in that nobody asked is a failure.
"""

import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Of this process, to which the kernel gives also what its own leave behind.
CHILDREN = Path(f"/proc/self/task/{os.getpid()}/children")
PR_SET_CHILD_SUBREAPER = 36
# What each page shows at least: blocks of a kind.
PAGES = {
    "README.md": {"sh": 4, "python": 1, "kill -9": 1},
    "GUIDE.md": {"sh": 20, "Ctrl-C": 1, "prints": 8},
    "deploy/kubernetes/README.md": {"sh": 1},
}
# Addresses of model servers, where a page names one, and whose place is taken.
STAND_INS = {
    "http://127.0.0.1:11434": "Ollama",
    "http://127.0.0.1:8000": "vLLM",
    "http://127.0.0.1:8001": "llama.cpp",
    "https://api.openai.com": "OpenAI",
}
NOT_RUN = {
    "a model server": "needs a model of some gigabytes, and where it runs fast a GPU",
    "docker": "needs a container engine and its registry",
    "kubectl": "needs a Kubernetes",
}
# Commands that cannot be run from within themselves.
RUN_ELSEWHERE = {"./test.sh": "this very run"}
STARTS_A_NODE = re.compile(r"(^|[\n/ ])(cargo run --release|klatch serve( --config \S+)?)\n$")
# Of the clusters that pages start; some are in NGINX's files too.
PORTS = (6399, 7941, 7942, 7943, 8081, 8082, 8083, 8090, 8443, 9091, 9092, 9093)
START_SECONDS = 900
BLOCK_SECONDS = 600


def parts(text):
    """(kind, text) of each block to run, or not to, and of each comment that says something of them."""
    pattern = re.compile(r"^```(\w*)\n(.*?)^```$|^<!-- (.*?) -->$", re.M | re.S)
    why, prints = None, False
    for match in pattern.finditer(text):
        kind, block, said = match.groups()
        if said is None:
            if why is not None:
                yield "not run", why
            elif prints:
                yield "prints", block
            elif kind in ("sh", "python"):
                yield kind, block
            why, prints = None, False
        elif said.startswith("not run: "):
            why = said.removeprefix("not run: ")
        elif said == "prints":
            prints = True
        elif said in ("kill -9", "Ctrl-C"):
            yield said, ""
        elif re.fullmatch(r"\d+ are not run", said):
            yield "told", said.split()[0]


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def program(name):
    """A program of this repository that is built; `klatch` itself the page builds."""
    for profile in ("release", "debug"):
        path = ROOT / "target" / profile / name
        if path.exists():
            return path
    sys.exit(f"there is no {name}: cargo build --locked -p klatch-tests --bin {name}")


class StandIn:
    """A `fake-model` in the place of a model server."""

    def __init__(self, instead_of):
        self.instead_of = instead_of
        self.process = subprocess.Popen([program("fake-model")], stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip().removesuffix("/v1")
        print(f"--- in place of {instead_of}: fake-model at {self.url}", flush=True)

    def complaint(self):
        with urllib.request.urlopen(f"{self.url}/calls", timeout=BLOCK_SECONDS) as answer:
            calls = json.load(answer)
        if not calls:
            return f"nobody asked {self.instead_of}"
        if self.instead_of == "OpenAI" and not all(call["authorized"] for call in calls):
            return "OpenAI was asked without a key"
        return None


class Reader:
    def __init__(self, page, folder):
        self.page, self.folder = page, Path(folder)
        self.http, self.ops = free_port(), free_port()
        # And functions: what one block leaves to the next.
        self.variables = self.folder / "variables"
        self.environment = {
            **os.environ,
            "KLATCH_HTTP_ADDR": f"127.0.0.1:{self.http}",
            "KLATCH_OPS_ADDR": f"127.0.0.1:{self.ops}",
            "KLATCH_STORE": f"file:{folder}/klatch-data",
            "KLATCH_URL": f"http://127.0.0.1:{self.http}",
            "KLATCH_OPS_URL": f"http://127.0.0.1:{self.ops}",
        }
        # As the reader, who has no kubectl of this repository's tests, should have one.
        self.environment["PATH"] += f":{ROOT}/target/venv-kubernetes/bin"
        self.stand_ins = {}
        self.node, self.start_command, self.printed = None, None, ""

    def moved(self, text):
        """The text with what is not as the reader has it."""
        text = text.replace("127.0.0.1:8080", f"127.0.0.1:{self.http}").replace("127.0.0.1:9090", f"127.0.0.1:{self.ops}")
        for address, instead_of in STAND_INS.items():
            if address in text:
                if address not in self.stand_ins:
                    self.stand_ins[address] = StandIn(instead_of)
                text = text.replace(address, self.stand_ins[address].url)
        return text.replace("~/my-bot", str(self.folder / "my-bot"))

    def command(self, text):
        before = f". {self.variables}\n" if self.variables.exists() else ""
        return ["bash", "-euo", "pipefail", "-c", before + self.moved(text)]

    def start(self, text):
        if self.node is not None:
            sys.exit("there are two nodes in the foreground, and one was not stopped")
        self.start_command = text
        self.node = subprocess.Popen(
            self.command(text),
            cwd=self.page.parent, env=self.environment, stdout=subprocess.PIPE, text=True, start_new_session=True,
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
        self.node = None
        self.start(self.start_command)

    def stop(self):
        """As Ctrl-C in its terminal."""
        os.killpg(self.node.pid, signal.SIGINT)
        code = self.node.wait(timeout=BLOCK_SECONDS)
        if code != 0:
            sys.exit(f"the node ended with {code}")
        self.node = None

    def run(self, kind, text):
        if kind == "python":
            command = [ROOT / "target/venv/bin/python", "-c", self.moved(text)]
        else:
            command = self.command(text + f"\n{{ export -p; declare -f; }} > {self.variables}\n")
        environment = {**self.environment, **self.exported()}
        # A file and no pipe: what a block leaves running may keep it open.
        with tempfile.TemporaryFile("w+") as output:
            block = subprocess.Popen(
                command, cwd=self.page.parent, env=environment, stdin=subprocess.DEVNULL, stdout=output, start_new_session=True
            )
            try:
                code = block.wait(timeout=BLOCK_SECONDS)
            finally:
                output.seek(0)
                self.printed = output.read()
                print(self.printed, end="", flush=True)
        if code != 0:
            sys.exit(f"this block of {self.page.name} ended with {code}:\n{text}")

    def compare(self, expected):
        pattern = "".join(".*" if piece == "…" else re.escape(piece) for piece in re.split("(…)", expected.strip()))
        if not re.fullmatch(pattern, self.printed.strip(), re.S):
            sys.exit(f"{self.page.name} says that this is printed:\n{expected}and it is this:\n{self.printed}")

    def exported(self):
        if not self.variables.exists():
            return {}
        shown = subprocess.run(["bash", "-c", f". {self.variables}; env -0"], stdout=subprocess.PIPE, check=True).stdout
        pairs = (pair.split("=", 1) for pair in shown.decode().split("\0") if "=" in pair)
        return {name: value for name, value in pairs if name.startswith("KLATCH_")}

    def read(self, kind, text):
        if kind in ("not run", "told") or text.strip() in RUN_ELSEWHERE:
            return
        print(f"--- {kind}\n{text}", flush=True)
        begun = time.monotonic()
        if kind == "prints":
            self.compare(text)
        elif kind == "kill -9":
            self.kill()
        elif kind == "Ctrl-C":
            self.stop()
        elif kind == "sh" and STARTS_A_NODE.search(text):
            self.start(text)
        else:
            self.run(kind, text)
        if kind != "prints":
            print(f"--- took {time.monotonic() - begun:.1f} s", flush=True)


def check(name, found):
    """That the page shows what it should, and that what is not run was meant."""
    kinds = [kind for kind, _ in found]
    for kind, least in PAGES[name].items():
        if kinds.count(kind) < least:
            sys.exit(f"{name} has {kinds.count(kind)} of {kind!r}, and should have {least} or more")
    unrun = [why for kind, why in found if kind == "not run"]
    told = sum(int(number) for kind, number in found if kind == "told")
    if len(unrun) != told:
        sys.exit(f"{name} says that {told} of its blocks are not run, and {len(unrun)} are not")
    for why in unrun:
        if why not in NOT_RUN:
            sys.exit(f"{name}: `not run: {why}` is no reason; there are {', '.join(NOT_RUN)}")
    return unrun


def check_ports(name):
    """Those of a page that starts a cluster."""
    for port in PORTS if "--cluster-addr" in (ROOT / name).read_text() else ():
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                sys.exit(f"port {port} is taken, and commands of {name} name it")


def follow(name, folder):
    page = ROOT / name
    found = list(parts(page.read_text()))
    unrun = check(name, found)
    reader = Reader(page, folder)
    for kind, text in found:
        reader.read(kind, text)
    if reader.node is not None:
        reader.stop()
    for complaint in filter(None, (stand_in.complaint() for stand_in in reader.stand_ins.values())):
        sys.exit(f"{name}: {complaint}")
    ran = sum(kind in ("sh", "python") for kind, _ in found)
    print(f"{name}: {ran} blocks did what they say; not run: {', '.join(unrun) or 'none'}", flush=True)


def follow_and_clean_up(name):
    """In a process of its own: what it leaves behind, whatever its group, comes to this one, and is ended."""
    with tempfile.TemporaryDirectory(prefix="klatch-readme-") as folder:
        # Workers of an NGINX whose master is root are not, and its folder is in here.
        os.chmod(folder, 0o755)
        follower = os.fork()
        if follower == 0:
            # As an exception it would clean up what is the parent's.
            try:
                follow(name, folder)
                code = 0
            except SystemExit as refused:
                print(refused, file=sys.stderr)
                code = 1
            except BaseException:
                traceback.print_exc()
                code = 1
            sys.stdout.flush()
            os._exit(code)
        try:
            while True:
                ended, status = os.wait()
                if ended == follower:
                    return os.waitstatus_to_exitcode(status)
        finally:
            while children := CHILDREN.read_text().split():
                for child in map(int, children):
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)


def main():
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        sys.exit("servers that a page leaves behind could not be ended: there is no PR_SET_CHILD_SUBREAPER")
    for name in sys.argv[1:] or PAGES:
        check_ports(name)
        if follow_and_clean_up(name) != 0:
            sys.exit(f"{name} does not do what it says")


main()
