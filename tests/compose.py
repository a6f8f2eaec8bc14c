"""Runs deploy/compose.yaml without a container engine: the same command lines, environment, files, users, addresses and names,
with the programs of this machine in the place of images.

Each service has a root of its own (an overlay of this machine's, read-only where the file says so), a network namespace with its
address, and no capabilities. What the image of the nodes adds is read from deploy/Dockerfile. Needs root, and the programs in
PROGRAMS; Grafana is no Debian package, so of it only the file's form is checked. All of it is gone when this ends.
"""

import json
import os
import re
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.request
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
ENTERED = "KLATCH_COMPOSE_ENTERED"
HUB = "172.31.77.1/24"
# What stands for the entry point and the user of an image; a service's command comes behind it.
PROGRAMS = {
    "docker.io/library/nginx": ([], "0:0"),
    "docker.io/library/redis": ([], "0:0"),
    "docker.io/nginx/nginx-prometheus-exporter": (["prometheus-nginx-exporter"], "65534:65534"),
    "docker.io/oliver006/redis_exporter": (["prometheus-redis-exporter"], "65534:65534"),
    "docker.io/prom/prometheus": (["prometheus"], "65534:65534"),
    "docker.io/prom/alertmanager": (["prometheus-alertmanager"], "65534:65534"),
}
WITHOUT_PROGRAM = {"docker.io/grafana/grafana"}
PATIENCE_SECONDS = 90
POLL_SECONDS = 0.2


def run(*command):
    subprocess.run(command, check=True)


def until(what, holds):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            seen = holds()
        except OSError as error:
            seen = error
        if seen is True:
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"waited in vain until {what}: {seen}")
        time.sleep(POLL_SECONDS)


def dockerfile():
    """What the last stage says of how the program is run."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    last = text[text.rindex("\nFROM ") :]
    found = dict(re.findall(r"^(ENTRYPOINT|CMD|USER|WORKDIR|ENV) (.*)$", last, re.M))
    health = re.search(r"^HEALTHCHECK .*CMD (\[.*\])$", last, re.M)
    return {
        "entrypoint": json.loads(found["ENTRYPOINT"]),
        "command": json.loads(found["CMD"]),
        "health": json.loads(health[1]),
        "user": found["USER"],
        "folder": found["WORKDIR"],
        "environment": dict(pair.split("=", 1) for pair in found["ENV"].split()),
    }


class Service:
    def __init__(self, name, said, folder, addresses):
        self.name, self.said, self.folder, self.addresses = name, said, folder, addresses
        self.root = folder / "roots" / name
        self.image = said["image"].split(":")[0]
        self.process = None
        built = dockerfile() if self.image == "klatch" else None
        entrypoint, user = ([], None) if built else PROGRAMS[self.image]
        entrypoint = said.get("entrypoint", built["entrypoint"] if built else entrypoint)
        self.command = [*entrypoint, *said.get("command", built["command"] if built else [])]
        self.user = said.get("user", built["user"] if built else user)
        self.working_folder = built["folder"] if built else "/"
        self.environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        self.environment |= (built["environment"] if built else {}) | said.get("environment", {})
        self.health = said.get("healthcheck", {}).get("test", ["CMD", *built["health"]] if built else None)
        mode = said.get("network_mode", "")
        self.network = mode.removeprefix("service:") if mode.startswith("service:") else name
        assert set(said) <= UNDERSTOOD, f"{name}: nobody looks at {set(said) - UNDERSTOOD}"

    def lay(self):
        """Its root, with what is mounted there."""
        lower, work = self.folder / "upper" / self.name, self.folder / "work" / self.name
        for path in (self.root, lower, work):
            path.mkdir(parents=True)
        run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir=/,upperdir={lower},workdir={work}", self.root)
        if self.image == "klatch":
            (self.root / "usr/local/bin").mkdir(parents=True, exist_ok=True)
            self.bind(ROOT / "target/debug/klatch", self.root / "usr/local/bin/klatch")
            (self.root / self.working_folder.strip("/")).mkdir(parents=True, exist_ok=True)
        hosts = self.root / "etc/hosts"
        hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in self.addresses.items()))
        for volume in self.said.get("volumes", []):
            source, target, *options = volume.split(":")
            path = (DEPLOY / source).resolve() if source.startswith(".") else self.volume(source)
            assert path.exists(), f"{self.name} mounts {path}, which is not there"
            self.bind(path, self.root / target.strip("/"), "ro" in options)
        for mount in self.said.get("tmpfs", []):
            target, _, options = mount.partition(":")
            path = self.root / target.strip("/")
            path.mkdir(parents=True, exist_ok=True)
            run("mount", "-t", "tmpfs", "none", *(["-o", options] if options else []), path)
        for kernel in ("proc", "dev"):
            run("mount", "--bind", f"/{kernel}", self.root / kernel)
        if self.said.get("read_only"):
            run("mount", "-o", "remount,ro,bind", self.root)

    def volume(self, name):
        path = self.folder / "volumes" / name
        if not path.exists():
            path.mkdir(parents=True)
            # As an image's folder is that a new volume is filled from.
            user, _, group = self.user.partition(":")
            os.chown(path, int(user), int(group))
        return path

    def bind(self, path, target, read_only=False):
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        elif not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        run("mount", "--bind", path, target)
        if read_only:
            run("mount", "-o", "remount,ro,bind", target)

    def connect(self):
        run("ip", "netns", "add", self.name)
        run("ip", "-n", self.name, "link", "set", "lo", "up")
        if self.said.get("network_mode") == "none":
            return
        link, address = f"v{self.addresses[self.name].rsplit('.', 1)[1]}", f"{self.addresses[self.name]}/24"
        run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        run("ip", "link", "set", link, "master", "klatch0", "up")
        run("ip", "-n", self.name, "addr", "add", address, "dev", "eth0")
        run("ip", "-n", self.name, "link", "set", "eth0", "up")

    def inside(self, command):
        """The command as the engine would run it in the container."""
        user, _, group = self.user.partition(":")
        limits = ["--clear-groups", "--no-new-privs"]
        if self.said.get("cap_drop") == ["ALL"]:
            limits += ["--bounding-set=-all", "--inh-caps=-all"]
        files = self.said.get("ulimits", {}).get("nofile", 1024)
        return [
            *("prlimit", f"--nofile={files}", "nsenter", f"--net=/run/netns/{self.network}", "env", "-i"),
            *(f"{name}={value}" for name, value in self.environment.items()),
            *("chroot", str(self.root), "setpriv", f"--reuid={user}", f"--regid={group}", *limits),
            *("sh", "-c", 'cd "$0" && exec "$@"', self.working_folder, *command),
        ]

    def start(self):
        log = (self.folder / f"{self.name}.log").open("ab")
        # An engine gives it to the container's user, who may open it again.
        os.fchmod(log.fileno(), 0o666)
        self.process = subprocess.Popen(self.inside(self.command), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def execute(self, command):
        """As `docker compose exec` and health checks do."""
        return subprocess.run(self.inside(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)

    def is_healthy(self):
        assert self.process.poll() is None, f"{self.name} ended: {self.log()}"
        if self.health is None:
            return True
        seen = self.execute(self.health[1:])
        return True if seen.returncode == 0 else seen.stderr

    def log(self):
        return (self.folder / f"{self.name}.log").read_text()


# Of a service's keys: those that this program acts upon, and those that say nothing without an engine.
UNDERSTOOD = {"image", "user", "command", "entrypoint", "environment", "volumes", "tmpfs", "network_mode", "networks"}
UNDERSTOOD |= {"read_only", "cap_drop", "healthcheck", "depends_on", "stop_signal", "ulimits"}
UNDERSTOOD |= {"build", "restart", "security_opt", "stop_grace_period", "ports", "mem_limit"}
# What the program itself needs beside conversations.
PROGRAM_BYTES = 256 << 20


def check_form(text):
    """By Debian's docker-compose, which is older than the file's `name`."""
    older = re.sub(r"^name: .*\n", "", text, flags=re.M)
    command = ["docker-compose", "--project-directory", DEPLOY, "-f", "-", "config", "-q"]
    subprocess.run(command, input=older, text=True, check=True)


def check_memory(services):
    """Over twice active_bytes a node refuses new turns; an engine that has less to give would kill it before."""
    config = tomllib.loads((DEPLOY / "compose/klatch.toml").read_text())
    for name in ("klatch-0", "klatch-1", "klatch-2"):
        limit = int(re.fullmatch(r"(\d+)g", services[name]["mem_limit"])[1]) << 30
        assert limit >= 2 * config["limits"]["active_bytes"] + PROGRAM_BYTES, f"{name} may use {limit} bytes"


def addresses_of(services):
    addresses = {}
    for name, said in services.items():
        for network in said.get("networks", {}).values():
            for known in (name, *network.get("aliases", [])):
                addresses[known] = network["ipv4_address"]
    return addresses


def start_all(services):
    """In the order of depends_on, each once what it waits for is so."""
    waiting = dict(services)
    while waiting:
        for name, service in list(waiting.items()):
            needed = service.said.get("depends_on", {})
            if not any(other in waiting for other in needed):
                del waiting[name]
                service.start()
                if name in ("secrets", "welcome"):
                    code = service.process.wait(timeout=PATIENCE_SECONDS)
                    assert code == 0, f"{name} ended with {code}: {service.log()}"
                else:
                    until(f"{name} is healthy", service.is_healthy)
                print(f"{name}: {' '.join(service.command)}", flush=True)


def get(url, context=None, token=None, body=None):
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(url, data=body and json.dumps(body).encode(), headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    with opener.open(request, timeout=30) as answer:
        return answer.read()


def check_answers(services, folder, addresses):
    trusting = ssl.create_default_context(cafile=folder / "volumes/edge-tls/tls.crt")
    # The certificate says localhost, where the port is published.
    trusting.check_hostname = False
    issued = services["klatch-0"].execute(["klatch", "token", "--sub", "ann"])
    assert issued.returncode == 0, issued.stderr
    url = f"https://{addresses['nginx']}:8443/v1/responses"
    answer = json.loads(get(url, trusting, issued.stdout.strip(), {"model": "echo", "input": "hello"}))
    assert answer["status"] == "completed", answer
    print(f"a turn through NGINX: {answer['output'][0]['content'][0]['text']}")
    view = json.loads(get(f"http://{addresses['klatch-1']}:9090/cluster"))
    assert [member["status"] for member in view["members"]] == ["up"] * 3, view
    targets = f"http://{addresses['prometheus']}:9090/api/v1/targets"
    until("Prometheus reaches all", lambda: all_up(json.loads(get(targets))))
    get(f"http://{addresses['alertmanager']}:9093/-/ready")
    until("an alert is where alerts go", lambda: '"receiver":"/watchdog"' in services["alert-receiver"].log())
    for line in services["alert-receiver"].log().splitlines():
        logged = json.loads(line)
        print(f"alert at {logged['receiver']}: {json.loads(logged['alert'])['alerts'][0]['labels']['alertname']}")


def all_up(answer):
    targets = answer["data"]["activeTargets"]
    bad = [f"{target['scrapeUrl']}: {target['lastError']}" for target in targets if target["health"] != "up"]
    return bad or len(targets) > 0


def stop_all(services):
    """First who asks, last who is asked; the nodes together. Each ends by itself, and in good order."""
    for together in (["nginx"], ["klatch-0", "klatch-1", "klatch-2"], ["redis"]):
        for name in together:
            wanted = services[name].said.get("stop_signal", "SIGTERM")
            services[name].process.send_signal(getattr(signal, wanted))
        for name in together:
            code = services[name].process.wait(timeout=PATIENCE_SECONDS)
            assert code == 0, f"{name} ended with {code}: {services[name].log()[-2000:]}"
            print(f"{name} stopped", flush=True)


def main():
    if ENTERED not in os.environ:
        # Processes, mounts and networks of its own end with it.
        enter = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        os.environ[ENTERED] = "yes"
        os.execvp("unshare", [*enter, sys.executable, __file__])
    text = (DEPLOY / "compose.yaml").read_text()
    check_form(text)
    said = yaml.safe_load(text)["services"]
    check_memory(said)
    addresses = addresses_of(said)
    with tempfile.TemporaryDirectory(prefix="klatch-compose-") as made:
        folder = Path(made)
        run("mount", "-t", "tmpfs", "-o", "mode=0755", "none", folder)
        Path("/run/netns").mkdir(exist_ok=True)
        # Names of namespaces are files: with a folder of their own they are gone with this program.
        run("mount", "-t", "tmpfs", "none", "/run/netns")
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "klatch0", "type", "bridge")
        run("ip", "addr", "add", HUB, "dev", "klatch0")
        run("ip", "link", "set", "klatch0", "up")
        services = {}
        for name, one in said.items():
            if one["image"].split(":")[0] not in WITHOUT_PROGRAM:
                services[name] = Service(name, one, folder, addresses)
        for service in services.values():
            service.lay()
            if service.network == service.name:
                service.connect()
        try:
            start_all(services)
            check_answers(services, folder, addresses)
            stop_all(services)
        finally:
            for service in services.values():
                if service.process and service.process.poll() is None:
                    service.process.kill()
            subprocess.run(["umount", "--recursive", "--lazy", folder], check=False)
    print("compose.yaml runs as it is")


main()
