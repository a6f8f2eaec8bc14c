"""Everything that is watched and everything that watches, as processes of this test: Redis, three nodes that meet over mutual
TLS, NGINX before them, the exporters, Prometheus and Alertmanager with the shipped configuration.

Of that configuration only addresses are other ones, and times are shorter where a test would wait for them. Waits for what
the programs answer; every wait has an end.
"""

import contextlib
import http.server
import json
import os
import random
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "deploy/monitoring"
KLATCH = Path(os.environ.get("KLATCH_BIN", ROOT / "target/debug/klatch"))
NODES = ["klatch-0", "klatch-1", "klatch-2"]
# A debug build on a busy machine.
PATIENCE_SECONDS = 90


class Failed(SystemExit):
    """Ends the test; what the programs said is shown before their folder goes."""


def free_port():
    """Below those that the system gives to outgoing connections, of which there are many before all have started."""
    for port in random.sample(range(20_000, 32_000), 200):
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise Failed("no port is free")


def get(url, **query):
    # What Prometheus has against a query stands in its answer.
    request = f"{url}?{urllib.parse.urlencode(query)}" if query else url
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()


def until(what, is_so, seconds=PATIENCE_SECONDS):
    """Asks again until it is so, and answers with what was found."""
    end, why = time.monotonic() + seconds, None
    while time.monotonic() < end:
        try:
            found = is_so()
            if found:
                return found
        except OSError as error:
            why = error
        time.sleep(0.1)
    raise Failed(f"waited in vain until {what}: {why or 'it is not so'}")


class Stack:
    def __init__(self, folder):
        self.folder = Path(folder)
        self.processes = {}
        self.alerts = []
        self.ports = {name: (free_port(), free_port(), free_port()) for name in NODES}
        self.redis, self.redis_exporter = free_port(), free_port()
        self.nginx, self.nginx_status, self.nginx_exporter = free_port(), free_port(), free_port()
        self.prometheus_port, self.alertmanager_port = free_port(), free_port()
        self.prometheus = f"http://127.0.0.1:{self.prometheus_port}"

    def __enter__(self):
        try:
            self.start()
        except BaseException as error:
            self.__exit__(type(error), error)
            raise
        return self

    def __exit__(self, kind=None, *_):
        if kind is not None:
            for name in self.processes:
                print(f"--- {name}, at last:", *self.log(name).splitlines()[-5:], sep="\n")
        for process in reversed(self.processes.values()):
            process.kill()
        for process in self.processes.values():
            process.wait()

    def start(self):
        self.receive_alerts()
        self.make_keys()
        self.run("redis", ["redis-server", "--port", self.redis, "--bind", "127.0.0.1", "--appendonly", "yes", "--save", "", "--dir", self.folder])
        until("Redis answers", lambda: socket.create_connection(("127.0.0.1", self.redis), 1))
        for name in NODES:
            self.start_node(name)
        for name in NODES:
            until(f"{name} is ready", lambda: '"ready":true' in get(f"{self.ops(name)}/readyz"))
        until("the cluster has formed", self.formed)
        self.start_nginx()
        address = f"127.0.0.1:{self.redis_exporter}"
        self.run("redis-exporter", ["prometheus-redis-exporter", "-redis.addr", f"redis://127.0.0.1:{self.redis}", "-web.listen-address", address])
        self.start_watchers()

    def run(self, name, command, **environment):
        log = open(self.folder / f"{name}.log", "ab")
        self.processes[name] = subprocess.Popen(
            [str(word) for word in command], cwd=self.folder, env={**os.environ, **environment},
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )
        log.close()

    def kill(self, name):
        self.processes[name].kill()
        self.processes[name].wait()

    def log(self, name):
        return (self.folder / f"{name}.log").read_text(errors="replace")

    # The nodes.

    def make_keys(self):
        def openssl(*words):
            done = subprocess.run(["openssl", *words], cwd=self.folder, capture_output=True, text=True)
            if done.returncode != 0:
                raise SystemExit(f"openssl {words}: {done.stderr}")

        openssl("genpkey", "-algorithm", "ed25519", "-out", "signing.pem")
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "90", "-keyout", "ca.key",
                "-out", "ca.pem", "-subj", "/CN=klatch test authority")
        names = ",".join(f"DNS:{name}" for name in NODES)
        (self.folder / "usage").write_text(f"subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=CA:FALSE\n")
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "node.key", "-out", "node.csr", "-subj", "/CN=klatch")
        openssl("x509", "-req", "-in", "node.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30", "-extfile", "usage", "-out", "node.pem")
        (self.folder / "klatch.toml").write_text(
            f"""[auth]
signing_keys = ["{self.folder}/signing.pem"]

[limits]
requests_per_minute = 1000000000

[[responder]]
name = "slow"
kind = "echo"
delay_ms = 200
token_delay_ms = 20
tokens = 40

[[responder]]
name = "failing"
kind = "echo"
fail_every = 2

[[webhook]]
url = "http://127.0.0.1:{self.receiver.server_address[1]}/webhook"
secret_env = "KLATCH_TEST_WEBHOOK_SECRET"
allow_http = true
allow_private = true
""")

    def environment(self, name):
        http, ops, peers = (f"127.0.0.1:{port}" for port in self.ports[name])
        return {
            "KLATCH_NODE_NAME": name, "KLATCH_HTTP_ADDR": http, "KLATCH_OPS_ADDR": ops, "KLATCH_STORE": f"redis://127.0.0.1:{self.redis}/0",
            "KLATCH_CLUSTER_ADDR": peers, "KLATCH_ADVERTISE": peers, "KLATCH_CLUSTER_SECRET": "a secret of this test, long enough for anybody",
            "KLATCH_CLUSTER_CERT": f"{self.folder}/node.pem", "KLATCH_CLUSTER_KEY": f"{self.folder}/node.key", "KLATCH_CLUSTER_CA": f"{self.folder}/ca.pem",
            "KLATCH_CONFIG": f"{self.folder}/klatch.toml", "KLATCH_TEST_WEBHOOK_SECRET": "whsec_a2xhdGNoIHdlYmhvb2sgb2YgdGhlIHRlc3Rz",
        }

    def start_node(self, name):
        # Each in a folder of its own, where its admin socket is.
        (self.folder / name).mkdir(exist_ok=True)
        self.run(name, ["env", "-C", self.folder / name, KLATCH, "serve"], **self.environment(name))

    def ops(self, name):
        return f"http://127.0.0.1:{self.ports[name][1]}"

    def formed(self):
        shown = [json.loads(get(f"{self.ops(name)}/cluster"))["members"] for name in NODES]
        return all(len(members) == len(NODES) and all(m["status"] == "up" and m["load"] for m in members) for members in shown)

    def token(self):
        command = [KLATCH, "token", "--sub", "ann", "--ttl", "3h"]
        return subprocess.run(command, cwd=self.folder / NODES[0], env={**os.environ, **self.environment(NODES[0])}, check=True, capture_output=True, text=True).stdout.strip()

    def load_command(self, arguments):
        """`klatch load` through NGINX."""
        return [KLATCH, "load", "--url", f"http://127.0.0.1:{self.nginx}", "--token", self.token(), *map(str, arguments)]

    def load(self, *arguments):
        done = subprocess.run(self.load_command(arguments), cwd=self.folder, capture_output=True, text=True, timeout=900)
        if done.returncode != 0:
            raise Failed(f"klatch load {arguments}: {done.stdout}{done.stderr}")

    @contextlib.contextmanager
    def loaded(self, *arguments):
        """Beside what is done meanwhile; what becomes of it is no matter."""
        self.run("load", self.load_command(arguments))
        try:
            yield
        finally:
            self.kill("load")

    # What watches.

    def start_nginx(self):
        servers = "".join(f"server 127.0.0.1:{self.ports[name][0]};" for name in NODES)
        (self.folder / "nginx.conf").write_text(
            f"""daemon off; pid {self.folder}/nginx.pid; error_log {self.folder}/nginx-error.log; events {{ worker_connections 512; }}
http {{
  access_log off; client_body_temp_path {self.folder}/body; proxy_temp_path {self.folder}/proxy; fastcgi_temp_path {self.folder}/fastcgi;
  uwsgi_temp_path {self.folder}/uwsgi; scgi_temp_path {self.folder}/scgi;
  upstream nodes {{ {servers} keepalive 16; }}
  server {{
    listen 127.0.0.1:{self.nginx};
    location / {{ proxy_pass http://nodes; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }}
  }}
  server {{ listen 127.0.0.1:{self.nginx_status}; location = /stub_status {{ stub_status; }} }}
}}
""")
        nginx = shutil.which("nginx") or "/usr/sbin/nginx"
        self.run("nginx", [nginx, "-p", self.folder, "-e", self.folder / "nginx-error.log", "-c", self.folder / "nginx.conf"])
        status = f"http://127.0.0.1:{self.nginx_status}/stub_status"
        until("NGINX answers", lambda: "Active" in get(status))
        self.run("nginx-exporter", ["prometheus-nginx-exporter", "-nginx.scrape-uri", status, "-web.listen-address", f"127.0.0.1:{self.nginx_exporter}"])

    def start_watchers(self):
        folder = self.folder / "prometheus"
        shutil.copytree(SHIPPED / "prometheus", folder)
        addresses = {f"{name}:9090": f"127.0.0.1:{self.ports[name][1]}" for name in NODES}
        addresses |= {"nginx-exporter:9113": f"127.0.0.1:{self.nginx_exporter}", "redis-exporter:9121": f"127.0.0.1:{self.redis_exporter}",
                      "alertmanager:9093": f"127.0.0.1:{self.alertmanager_port}"}
        shorter = {"scrape_interval: 15s": "scrape_interval: 1s", "scrape_timeout: 10s": "scrape_timeout: 1s", "evaluation_interval: 15s": "evaluation_interval: 1s"}
        substitute(folder / "prometheus.yml", addresses | shorter)
        substitute(folder / "rules/alerts.yaml", {"expr: up{job=\"klatch\"} == 0\n        for: 1m": "expr: up{job=\"klatch\"} == 0\n        for: 3s"})
        alertmanager = self.folder / "alertmanager.yml"
        shutil.copy(SHIPPED / "alertmanager/alertmanager.yml", alertmanager)
        substitute(alertmanager, {"alert-receiver:8000": f"127.0.0.1:{self.receiver.server_port}", "group_wait: 15s": "group_wait: 0s"})
        self.run("alertmanager", ["prometheus-alertmanager", f"--config.file={alertmanager}", f"--storage.path={self.folder}/alerts",
                                  f"--web.listen-address=127.0.0.1:{self.alertmanager_port}", "--cluster.listen-address="])
        self.run("prometheus", ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={self.folder}/series",
                                f"--web.listen-address=127.0.0.1:{self.prometheus_port}"])
        until("Prometheus is ready", lambda: "eady" in get(f"{self.prometheus}/-/ready"))

    def receive_alerts(self):
        alerts = self.alerts

        class Receiver(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                told = json.loads(self.rfile.read(int(self.headers["content-length"])))
                # A webhook's event has none.
                alerts.extend((self.path, alert) for alert in told.get("alerts", []))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.receiver = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
        threading.Thread(target=self.receiver.serve_forever, daemon=True).start()

    def query(self, expression):
        answer = json.loads(get(f"{self.prometheus}/api/v1/query", query=expression))
        if answer["status"] != "success":
            raise ValueError(answer["error"])
        return answer["data"]["result"]


def substitute(path, pairs):
    """Each of them must be there: else the shipped file has changed, and this test with it."""
    text = path.read_text()
    for old, new in pairs.items():
        if old not in text:
            raise SystemExit(f"{path.name} does not hold {old!r}")
        text = text.replace(old, new)
    path.write_text(text)
