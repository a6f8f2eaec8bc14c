"""What is shipped in deploy/monitoring, tried: rules against their tests, every query against a live cluster, one alert from a
dead node to its receiver.

    check.py                    all of it
    check.py --pictures DIR     draws the dashboards of that cluster under load too (needs matplotlib)
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True

import promql
from stack import NODES, ROOT, SHIPPED, Stack, get, until

RUNBOOK = ROOT / "deploy/RUNBOOK.md"
SECTIONS = ["**Meaning.**", "**First look.**", "**Likely causes.**", "**What to do.**"]
# Made by Prometheus from its rules while they fire.
NOT_SCRAPED = {"ALERTS"}


def say(*words):
    print(*words, flush=True)


def tool(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")


def files_are_valid():
    for name in ("prometheus.yml", "kubernetes.yml"):
        tool("promtool", "check", "config", SHIPPED / "prometheus" / name)
    rules = sorted((SHIPPED / "prometheus/rules").glob("*.yaml"))
    tool("promtool", "check", "rules", *rules)
    tests = sorted((SHIPPED / "prometheus/tests").glob("*.yaml"))
    tool("promtool", "test", "rules", *tests)
    tool("amtool", "check-config", SHIPPED / "alertmanager/alertmanager.yml")
    tool(sys.executable, SHIPPED / "grafana/build.py", "--check")
    say(f"{len(rules)} files of rules, {len(tests)} of their tests, both configurations: valid")


def every_alert_is_tested(alerts):
    """By its name: with a quiet moment, and with one at which it fires."""
    text = "".join(path.read_text() for path in (SHIPPED / "prometheus/tests").glob("*.yaml"))
    for alert in alerts:
        quiet = re.search(rf"alertname: {alert}, exp_alerts: \[\]", text)
        if not quiet and alert != "Watchdog":
            sys.exit(f"{alert} has no test in which it is quiet")
        if not re.search(rf"alertname: {alert}\n\s+exp_alerts:\n\s+- exp_labels", text):
            sys.exit(f"{alert} has no test in which it fires")


def every_alert_has_its_section(alerts):
    """And every section its alert."""
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", RUNBOOK.read_text(), re.M | re.S))
    for alert, rule in alerts.items():
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        if ROOT / page != RUNBOOK or anchor != alert.lower() or alert not in sections:
            sys.exit(f"{alert} has no section at {rule['annotations']['runbook_url']}")
        missing = [word for word in SECTIONS if word not in sections[alert]]
        if missing:
            sys.exit(f"the section of {alert} does not say {missing}")
    if sections.keys() - alerts.keys():
        sys.exit(f"sections of no alert: {sections.keys() - alerts.keys()}")
    for anchor in re.findall(r"\]\(#(\w+)\)", RUNBOOK.read_text()):
        if anchor not in {alert.lower() for alert in alerts}:
            sys.exit(f"{RUNBOOK.name} points to #{anchor}, which is not there")


def dashboards():
    """(where, expression) of every query, with the variables of Grafana filled in as it does."""
    ids = set()
    for path in sorted((SHIPPED / "grafana/dashboards").glob("*.json")):
        board = json.loads(path.read_text())
        ids.add(board["uid"])
        for variable in board["templating"]["list"]:
            match = re.match(r"label_values\((.*), (\w+)\)", variable.get("definition", ""))
            if match:
                yield f"{path.name}: variable", f"count by ({match[2]}) ({match[1]})"
        for annotation in board["annotations"]["list"]:
            yield f"{path.name}: annotation", annotation["expr"]
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                expression = target["expr"].replace("$instance", ".*").replace("$__rate_interval", "1m")
                yield f"{path.name}: {panel['title']}", expression
    if len(ids) != 6:
        sys.exit(f"these dashboards are there: {ids}")


def finds_its_metrics(stack, where, expression, seen):
    """Prometheus says whether it is an expression; each of its metrics must have series that have all of its labels."""
    try:
        stack.query(expression)
    except ValueError as error:
        return [f"{where}: {error}: {expression}"]
    wrong = []
    for metric, labels in promql.asked(expression).items():
        if metric in NOT_SCRAPED:
            continue
        if metric not in seen:
            seen[metric] = set().union(*(series["metric"].keys() for series in stack.query(metric)), set())
        if not seen[metric]:
            wrong.append(f"{where}: nobody has the metric {metric}")
        elif labels - seen[metric]:
            wrong.append(f"{where}: {metric} has no label {', '.join(labels - seen[metric])}")
    return wrong


def every_query_finds_its_metrics(stack, rules):
    queries = [(rule["name"], rule["query"]) for rule in rules] + list(dashboards())
    seen = {}
    wrong = [complaint for where, query in queries for complaint in finds_its_metrics(stack, where, query, seen)]
    if wrong:
        sys.exit("\n".join(wrong))
    # It can fail: of these each is wrong in its own way.
    planted = ["rate(klatch_turns_total[1m", "klatch_no_such_metric", 'klatch_turns_open{colour="red"}', "sum by (colour) (klatch_turns_open)"]
    if any(not finds_its_metrics(stack, "planted", query, seen) for query in planted):
        sys.exit("a wrong query was not noticed")
    say(f"{len(queries)} queries find their {len(seen)} metrics")


def shipped_metrics_are_shown(stack, rules):
    """A metric that no panel and no alert looks at is one that nobody looks at."""
    looked_at = set()
    for query in [rule["query"] for rule in rules] + [query for _, query in dashboards()]:
        looked_at.update(re.sub(r"_(bucket|sum|count)$", "", metric) for metric in promql.asked(query))
    families = re.findall(r"^# TYPE (klatch_\w+)", get(f"{stack.ops(NODES[0])}/metrics"), re.M)
    unseen = sorted(set(families) - looked_at)
    if unseen:
        sys.exit(f"no panel and no alert looks at {', '.join(unseen)}")


def targets_are_up(stack):
    wanted = {("klatch", name) for name in NODES} | {("nginx", "nginx"), ("redis", "redis")}

    def all_up():
        up = {(it["metric"]["job"], it["metric"]["instance"]) for it in stack.query("up == 1")}
        return up == wanted

    until("all targets are up", all_up)
    say(f"{len(wanted)} targets are up")


def nothing_fires_but_the_watchdog(stack):
    firing = {it["metric"]["alertname"] for it in stack.query('ALERTS{alertstate="firing"}')}
    if firing != {"Watchdog"}:
        sys.exit(f"in a healthy cluster there fire {firing}")


def a_dead_node_reaches_its_receiver(stack):
    until("the watchdog arrives", lambda: any(path == "/watchdog" for path, _ in stack.alerts))
    dead = NODES[2]
    # Its conversations go on with other nodes, which take them over.
    with stack.loaded("--duration", "5m", "--connections", 16, "--model", "slow", "--stream", "--any-text", "--retry"):
        until("all nodes have conversations", lambda: re.search(r"s: [1-9]\d* turns", stack.log("load")))
        stack.kill(dead)
        until("others took its conversations over", lambda: stack.query('sum(klatch_activations_total{result="claimed"}) > 0'))

    def told(status):
        alerts = [(path, alert) for path, alert in stack.alerts if alert["labels"]["alertname"] == "KlatchNodeDown"]
        return next((path for path, alert in alerts if alert["labels"]["instance"] == dead and alert["status"] == status), None)

    path = until("the dead node is told", lambda: told("firing"))
    if path != "/pager":
        sys.exit(f"it was told to {path}")
    stack.start_node(dead)
    until("the node is back", lambda: '"ready":true' in get(f"{stack.ops(dead)}/readyz"))
    until("the alert ends", lambda: not stack.query('ALERTS{alertname="KlatchNodeDown"}'))
    say("a node was killed: the pager heard of it, and the alert ended with its return")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--pictures", type=Path)
    arguments.add_argument("--seconds", type=int, default=12, help="how long there is load; pictures want some minutes")
    arguments = arguments.parse_args()
    promql.test()
    files_are_valid()
    with tempfile.TemporaryDirectory(prefix="klatch-monitoring-") as folder, Stack(folder) as stack:
        targets_are_up(stack)
        groups = json.loads(get(f"{stack.prometheus}/api/v1/rules"))["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        alerts = {rule["name"]: rule for rule in rules if rule["type"] == "alerting"}
        every_alert_is_tested(alerts)
        every_alert_has_its_section(alerts)
        say(f"{len(alerts)} alerts have their tests and their sections")
        stack.load("--duration", f"{arguments.seconds}s", "--connections", 4, "--stream")
        stack.load("--duration", f"{arguments.seconds}s", "--connections", 4, "--model", "slow", "--stream", "--any-text")
        until("rules were evaluated with what came", lambda: stack.query("job:klatch_http_first_token_seconds:p99_5m"))
        nothing_fires_but_the_watchdog(stack)
        a_dead_node_reaches_its_receiver(stack)
        every_query_finds_its_metrics(stack, rules)
        shipped_metrics_are_shown(stack, rules)
        if arguments.pictures:
            import pictures
            pictures.draw(stack, arguments.pictures)
    say("monitoring does what it says")


main()
