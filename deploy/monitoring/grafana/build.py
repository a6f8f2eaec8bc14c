#!/usr/bin/env python3
"""Writes the dashboards of Grafana beside this file: `build.py` into dashboards/, `build.py --check` fails where they differ.

A panel is one line here, and thirty of JSON. Each names what it asks and in which unit; colours say where a person should
look. Every query is tried against a live cluster by tests/monitoring/check.py.
"""

import json
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "dashboards"
SCHEMA = 41
COLUMNS = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
NODES = 'job="klatch",instance=~"$instance"'
RATE = "[$__rate_interval]"


def rate(metric, labels=NODES):
    return f"rate({metric}{{{labels}}}{RATE})"


def quantile(share, metric, by="", labels=NODES):
    by = ", ".join(filter(None, [by, "le"]))
    return f"histogram_quantile({share}, sum by ({by}) ({rate(metric + '_bucket', labels)}))"


def latencies(metric, labels=NODES):
    """Half, most and nearly all of them."""
    return [(quantile(share, metric, "", labels), f"p{round(share * 100)}") for share in (0.5, 0.9, 0.99)]


def steps(worse, least_well=None):
    """Colours from a value on: green below the first of `worse`; or red until it is `least_well`."""
    if least_well is not None:
        return [{"color": "red", "value": None}, {"color": "green", "value": least_well}]
    good = "green"
    colours = ["yellow", "red"] if len(worse) == 2 else ["red"]
    levels = [{"color": good, "value": None}]
    return levels + [{"color": colour, "value": value} for colour, value in zip(colours, worse)]


class Panel:
    def __init__(self, title, queries, unit="short", *, kind="timeseries", about="", warn=(), width=8, height=8, stack=False, least=None, well_from=None):
        self.title, self.queries, self.unit, self.kind, self.about = title, queries, unit, kind, about
        self.warn, self.width, self.height, self.stack, self.least, self.well_from = warn, width, height, stack, least, well_from

    def json(self, number, x, y):
        defaults = {"unit": self.unit, "thresholds": {"mode": "absolute", "steps": steps(self.warn, self.well_from)}}
        if self.least is not None:
            defaults["min"] = self.least
        panel = {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.about,
            "datasource": SOURCE,
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "fieldConfig": {"defaults": defaults, "overrides": []},
            "targets": [self.target(n, *query) for n, query in enumerate(self.queries)],
        }
        if self.kind == "timeseries":
            defaults["custom"] = {
                "drawStyle": "line",
                "lineWidth": 1,
                "fillOpacity": 20 if self.stack else 5,
                "showPoints": "never",
                "spanNulls": False,
                "stacking": {"mode": "normal" if self.stack else "none", "group": "A"},
                "thresholdsStyle": {"mode": "line" if self.warn else "off"},
            }
            panel["options"] = {
                "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }
        else:
            panel["options"] = {
                "colorMode": "value" if self.warn or self.well_from else "none",
                "graphMode": "area",
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
                "textMode": "auto",
            }
        return panel

    @staticmethod
    def target(number, expression, legend):
        return {
            "refId": chr(ord("A") + number),
            "datasource": SOURCE,
            "expr": expression,
            "legendFormat": legend,
            "range": True,
        }


def number(title, expression, unit="short", **rest):
    return Panel(title, [(expression, "")], unit, kind="stat", width=4, height=4, **rest)


def row(title):
    return title


def place(panels):
    """From left to right, and down where there is no room."""
    placed, x, y, high = [], 0, 0, 0
    for panel in panels:
        if isinstance(panel, str):
            y, x, high = y + high, 0, 0
            placed.append({
                "id": len(placed) + 1, "type": "row", "title": panel, "collapsed": False, "panels": [],
                "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": y},
            })
            y += 1
            continue
        if x + panel.width > COLUMNS:
            y, x, high = y + high, 0, 0
        placed.append(panel.json(len(placed) + 1, x, y))
        x, high = x + panel.width, max(high, panel.height)
    return placed


def variable(metric, job, multi):
    label = {
        "name": "instance", "label": "Node" if job == "klatch" else "Instance", "type": "query", "datasource": SOURCE,
        "query": {"query": f'label_values({metric}{{job="{job}"}}, instance)', "refId": "instances"},
        "definition": f'label_values({metric}{{job="{job}"}}, instance)',
        "refresh": 2, "sort": 1, "multi": multi, "includeAll": multi, "hide": 0, "options": [],
        "current": {"text": ["All"], "value": ["$__all"]} if multi else {},
    }
    if multi:
        label["allValue"] = ".*"
    return label


def dashboard(name, title, about, panels, instances=("klatch_build_info", "klatch", True)):
    source = {
        "name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0,
        "current": {}, "options": [], "refresh": 1, "regex": "", "multi": False, "includeAll": False,
    }
    return {
        "uid": f"klatch-{name}",
        "title": f"Klatch / {title}",
        "description": about,
        "tags": ["klatch"],
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "links": [{
            "type": "dashboards", "tags": ["klatch"], "title": "Klatch", "asDropdown": True, "includeVars": True,
            "keepTime": True, "icon": "external link", "targetBlank": False, "tooltip": "", "url": "",
        }],
        "templating": {"list": [source, variable(*instances)]},
        "annotations": {"list": [{
            "builtIn": 0, "datasource": SOURCE, "enable": True, "iconColor": "red", "name": "Alerts",
            "expr": 'ALERTS{alertstate="firing",severity="critical"}', "titleFormat": "{{alertname}}",
        }]},
        "panels": place(panels),
    }


REQUESTS = "klatch_http_requests_total"

OVERVIEW = [
    number("Nodes that answer", 'sum(up{job="klatch"})', about="Of those that Prometheus knows."),
    number("Nodes in the view", f'max(sum by (instance) (klatch_members{{{NODES},status="up"}}))'),
    number("Failed requests, 5 m", "job:klatch_http_error_ratio:rate5m", "percentunit", warn=(0.001, 0.0144)),
    number("First token, p99", "job:klatch_http_first_token_seconds:p99_5m", "s", warn=(2, 10)),
    number("Open turns", f"sum(klatch_turns_open{{{NODES}}})"),
    number("Oldest open turn", f"max(klatch_oldest_turn_age_seconds{{{NODES}}})", "s", warn=(300, 900)),
    row("Requests"),
    Panel("Requests by route", [(f"sum by (route) ({rate(REQUESTS)})", "{{route}}")], "reqps", stack=True),
    Panel("Errors by route and status", [(f'sum by (route, status) ({rate(REQUESTS, NODES + ",status=~" + chr(34) + "[45].." + chr(34))})', "{{status}} {{route}}")], "reqps", least=0),
    Panel("Latency until the answer's head", latencies("klatch_http_request_duration_seconds"), "s", least=0,
          about="A turn without a stream is answered at its end, so its time is the responder's too."),
    row("Turns"),
    Panel("Turns by outcome", [(f"sum by (outcome) ({rate('klatch_turns_total')})", "{{outcome}}")], "cps", stack=True),
    Panel("Time to first token", latencies("klatch_http_first_token_seconds"), "s", least=0),
    Panel("Turns, from acceptance to end", latencies("klatch_turn_duration_seconds"), "s", least=0),
    row("Error budget"),
    Panel("Share of failed requests", [(f"job:klatch_http_error_ratio:rate{window}", window) for window in ("5m", "30m", "1h", "6h")],
          "percentunit", warn=(0.006, 0.0144), width=12, least=0, about="Lines: where the alerts begin to fire."),
    Panel("Streams", [(f"sum(klatch_http_streams_open{{{NODES}}})", "open"), (f"sum({rate('klatch_http_streams_cut_total')})", "cut a second")], width=12, least=0),
]

CLUSTER = [
    number("View", f"max(klatch_view_number{{{NODES}}})"),
    number("Views apart", f"max(klatch_view_number{{{NODES}}}) - min(klatch_view_number{{{NODES}}})", warn=(1,)),
    number("Shards without a node", f'max(klatch_shards{{job="klatch"}}) - sum(klatch_shards_placed{{job="klatch"}})', warn=(1,)),
    number("Draining", f"sum(klatch_draining{{{NODES}}})"),
    number("Certificates end in", f"min(klatch_certificate_expiry_timestamp_seconds{{{NODES}}}) - time()", "s",
           well_from=7 * 86400),
    number("Fenced writes, 10 m", f"sum(increase(klatch_fenced_writes_total{{{NODES}}}[10m]))", warn=(30, 120)),
    row("Who is there"),
    Panel("View by node", [(f"klatch_view_number{{{NODES}}}", "{{instance}}")], about="All lines on one another, apart from moments."),
    Panel("Members by status", [(f"max by (status) (klatch_members{{{NODES}}})", "{{status}}")], least=0),
    Panel("Shards by node", [(f"klatch_shards_placed{{{NODES}}}", "{{instance}}")], stack=True, least=0),
    row("What they say to one another"),
    Panel("Requests passed on, by result", [(f"sum by (result) ({rate('klatch_forwards_total')})", "{{result}}")], "reqps", stack=True),
    Panel("Passed on, until answered (p99)", [(quantile(0.99, "klatch_forward_duration_seconds", "request"), "{{request}}")], "s", least=0,
          about="`submit` and `watch` wait for a turn; `other` is answered at once."),
    Panel("Connections to other nodes", [(f"klatch_peers_connected{{{NODES}}}", "{{instance}}")], least=0),
    Panel("Round trip to the table of nodes (p99)", [(quantile(0.99, "klatch_view_table_duration_seconds", "instance, result"), "{{instance}} {{result}}")], "s", warn=(0.5, 1), least=0,
          about="One each 250 ms and node: the heartbeat."),
    Panel("Lost, refused, declared dead", [
        (f"sum({rate('klatch_peer_connections_lost_total')})", "connections lost"),
        (f"sum({rate('klatch_peer_handshakes_refused_total')})", "handshakes refused"),
        (f"sum({rate('klatch_declared_dead_total')})", "declared dead"),
    ], "cps", least=0),
    Panel("Fenced writes", [(f"sum by (instance) ({rate('klatch_fenced_writes_total')})", "{{instance}}")], "wps", warn=(0.2,), least=0),
]

RUNTIME = [
    Panel("Conversations in memory", [(f"klatch_conversations_active{{{NODES}}}", "{{instance}}")], stack=True, least=0),
    Panel("Taken into memory, by result", [(f"sum by (result) ({rate('klatch_activations_total')})", "{{result}}")], "cps", stack=True),
    Panel("Left memory, by reason", [(f"sum by (reason) ({rate('klatch_conversation_endings_total')})", "{{reason}}")], "cps", stack=True,
          about="idle is passivation; the others ended badly."),
    Panel("Activation", latencies("klatch_activation_duration_seconds"), "s", least=0),
    Panel("Open turns", [(f"klatch_turns_open{{{NODES}}}", "{{instance}}")], stack=True, least=0),
    Panel("Oldest open turn", [(f"klatch_oldest_turn_age_seconds{{{NODES}}}", "{{instance}}")], "s", warn=(300, 900), least=0),
    Panel("Turns by model", [(f"sum by (model) ({rate('klatch_turns_total')})", "{{model}}")], "cps", stack=True),
    Panel("Turns that did not complete", [(f"sum by (model, outcome) ({rate('klatch_turns_total', NODES + ',outcome!=' + chr(34) + 'completed' + chr(34))})", "{{outcome}} {{model}}")], "cps", least=0),
    Panel("Turn by model (p99)", [(quantile(0.99, "klatch_turn_duration_seconds", "model"), "{{model}}")], "s", least=0),
    Panel("Crashes of conversations", [(f"sum by (instance) (increase(klatch_conversation_crashes_total{{{NODES}}}[5m]))", "{{instance}}")], warn=(1,), least=0),
    Panel("Calls of webhooks, by result", [(f"sum by (result) ({rate('klatch_webhook_attempts_total')})", "{{result}}")], "cps", stack=True,
          about="All but heard are tried again; forbidden is a configuration that points inside."),
    Panel("Webhooks: from a turn's end until it is heard", latencies("klatch_webhook_delay_seconds"), "s", least=0),
    Panel("Calls of webhooks (p99), ends given up", [
        (quantile(0.99, "klatch_webhook_attempt_duration_seconds"), "a call, in s"),
        (f"sum(increase(klatch_webhook_given_up_total{{{NODES}}}[1h]))", "given up in an hour"),
    ], warn=(1,), least=0),
    Panel("Busy threads", [(f"klatch_runtime_busy_ratio{{{NODES}}}", "{{instance}}")], "percentunit", warn=(0.7, 0.9), least=0),
    Panel("Tasks that wait for a thread", [(f"klatch_runtime_queue_depth{{{NODES}}}", "{{instance}}")], warn=(100, 1000), least=0),
]

STORE = [
    number("Redis", 'min(redis_up{job="redis"})', well_from=1, about="1: it answers its exporter."),
    number("Redis memory", 'sum(redis_memory_used_bytes{job="redis"})', "bytes"),
    number("Clients of Redis", 'sum(redis_connected_clients{job="redis"})'),
    number("Logs that went back", f"sum(klatch_store_went_back_total{{{NODES}}})", warn=(1,)),
    number("Appends a second", f"sum({rate('klatch_appends_total')})", "wps"),
    number("Failed operations, 5 m", f'sum(rate(klatch_store_operation_seconds_count{{{NODES},result=~"unknown|unavailable|damaged"}}[5m])) / sum(rate(klatch_store_operation_seconds_count{{{NODES}}}[5m])) or vector(0)', "percentunit", warn=(0.001, 0.01)),
    row("Operations, as the nodes see them"),
    Panel("Operations", [(f"sum by (operation) ({rate('klatch_store_operation_seconds_count')})", "{{operation}}")], "ops", stack=True),
    Panel("Not ok, by result", [(f'sum by (operation, result) ({rate("klatch_store_operation_seconds_count", NODES + ",result!=" + chr(34) + "ok" + chr(34))})', "{{operation}} {{result}}")], "ops", least=0),
    Panel("Latency by operation (p99)", [(quantile(0.99, "klatch_store_operation_seconds", "operation"), "{{operation}}")], "s", least=0),
    Panel("Append", latencies("klatch_store_operation_seconds", NODES + ',operation="append"'), "s", warn=(0.1, 0.25), least=0),
    Panel("Commits", latencies("klatch_store_commit_seconds"), "s", least=0),
    Panel("Entries in a commit", [(f"sum by (instance) ({rate('klatch_store_batch_entries_sum')}) / sum by (instance) ({rate('klatch_store_batch_entries_count')})", "{{instance}}")], least=0,
          about="More means that many wait for one another: that is what batching is for."),
    Panel("Appends by result", [(f"sum by (result) ({rate('klatch_appends_total')})", "{{result}}")], "wps", stack=True),
    Panel("Connections to Redis", [(f"klatch_store_connected{{{NODES}}}", "{{instance}}"), (f"sum({rate('klatch_store_connections_total')})", "made a second")], least=0),
    Panel("Replicas that were late, embedded store opened again", [
        (f"sum({rate('klatch_store_short_replica_waits_total')})", "batches without their replicas"),
        (f"sum({rate('klatch_store_reopened_total')})", "store opened again"),
    ], "cps", least=0),
    row("Redis itself"),
    Panel("Commands", [('sum(rate(redis_commands_processed_total{job="redis"}[$__rate_interval]))', "commands")], "ops", least=0),
    Panel("Memory", [('redis_memory_used_bytes{job="redis"}', "used"), ('redis_memory_max_bytes{job="redis"}', "at most (0: no limit)")], "bytes", least=0),
    Panel("Network", [
        ('sum(rate(redis_net_input_bytes_total{job="redis"}[$__rate_interval]))', "in"),
        ('sum(rate(redis_net_output_bytes_total{job="redis"}[$__rate_interval]))', "out"),
    ], "Bps", least=0),
    Panel("Keys", [('sum by (db) (redis_db_keys{job="redis"})', "{{db}}")], least=0),
    Panel("CPU", [
        ('sum(rate(redis_cpu_sys_seconds_total{job="redis"}[$__rate_interval]))', "system"),
        ('sum(rate(redis_cpu_user_seconds_total{job="redis"}[$__rate_interval]))', "user"),
    ], "percentunit", stack=True, warn=(0.7, 0.9), least=0, about="Redis runs its commands on one core."),
    Panel("Persistence", [
        ('redis_aof_enabled{job="redis"}', "append-only file"),
        ('redis_aof_last_write_status{job="redis"}', "last write went well"),
    ], least=0, about="Both must be 1."),
]

NGINX_LABELS = 'job="nginx",instance=~"$instance"'
NGINX = [
    number("NGINX that answer", f"sum(nginx_up{{{NGINX_LABELS}}})"),
    number("Connections", f"sum(nginx_connections_active{{{NGINX_LABELS}}})"),
    number("Requests a second", f"sum({rate('nginx_http_requests_total', NGINX_LABELS)})", "reqps"),
    row("Connections"),
    Panel("Requests", [(f"sum by (instance) ({rate('nginx_http_requests_total', NGINX_LABELS)})", "{{instance}}")], "reqps", stack=True),
    Panel("Connections by what they do", [
        (f"sum(nginx_connections_reading{{{NGINX_LABELS}}})", "reading"),
        (f"sum(nginx_connections_writing{{{NGINX_LABELS}}})", "writing, streams too"),
        (f"sum(nginx_connections_waiting{{{NGINX_LABELS}}})", "idle"),
    ], stack=True, least=0),
    Panel("Accepted and not handled", [
        (f"sum({rate('nginx_connections_accepted', NGINX_LABELS)})", "accepted"),
        (f"sum({rate('nginx_connections_accepted', NGINX_LABELS)}) - sum({rate('nginx_connections_handled', NGINX_LABELS)})", "not handled"),
    ], "cps", least=0, about="Not handled: `worker_connections` was reached."),
    row("What the nodes behind it answer"),
    Panel("Answers by status", [('sum by (status) (rate(klatch_http_requests_total{job="klatch"}[$__rate_interval]))', "{{status}}")], "reqps", stack=True),
    Panel("By node", [('sum by (instance) (rate(klatch_http_requests_total{job="klatch"}[$__rate_interval]))', "{{instance}}")], "reqps", stack=True),
    Panel("Open connections to nodes", [('sum by (instance, port) (klatch_http_connections{job="klatch"})', "{{instance}} {{port}}")], least=0),
]

NODE = [
    number("Version", f"max by (version) (klatch_build_info{{{NODES}}})", about="As its label."),
    number("Up since", f"time() - process_start_time_seconds{{{NODES}}}", "s"),
    number("Memory", f"process_resident_memory_bytes{{{NODES}}}", "bytes"),
    number("Open files", f"process_open_fds{{{NODES}}} / process_max_fds{{{NODES}}}", "percentunit", warn=(0.7, 0.9)),
    number("Draining", f"klatch_draining{{{NODES}}}", warn=(1,)),
    number("Must be gone in", f"(klatch_drain_deadline_timestamp_seconds{{{NODES}}} - time()) * klatch_draining{{{NODES}}}", "s"),
    row("What it does"),
    Panel("Requests by route", [(f"sum by (route, method) ({rate(REQUESTS)})", "{{method}} {{route}}")], "reqps", stack=True),
    Panel("Latency by route (p99)", [(quantile(0.99, "klatch_http_request_duration_seconds", "route"), "{{route}}")], "s", least=0),
    Panel("Conversations, turns, streams", [
        (f"klatch_conversations_active{{{NODES}}}", "conversations"),
        (f"klatch_turns_open{{{NODES}}}", "open turns"),
        (f"klatch_http_streams_open{{{NODES}}}", "streams"),
    ], least=0),
    row("The process"),
    Panel("CPU", [(f"rate(process_cpu_seconds_total{{{NODES}}}{RATE})", "cores")], "short", least=0),
    Panel("Memory", [(f"process_resident_memory_bytes{{{NODES}}}", "resident")], "bytes", least=0),
    Panel("Files and threads", [(f"process_open_fds{{{NODES}}}", "open files"), (f"process_threads{{{NODES}}}", "threads")], least=0),
    Panel("Busy threads", [(f"klatch_runtime_busy_ratio{{{NODES}}}", "busy")], "percentunit", warn=(0.7, 0.9), least=0),
    Panel("Tasks", [(f"klatch_runtime_tasks{{{NODES}}}", "live"), (f"klatch_runtime_queue_depth{{{NODES}}}", "waiting for a thread"), (f"klatch_runtime_workers{{{NODES}}}", "threads for them")], least=0),
    Panel("Connections", [(f"klatch_http_connections{{{NODES}}}", "{{port}}"), (f"sum({rate('klatch_http_accept_errors_total')})", "not accepted, a second")], least=0),
    row("Who comes in"),
    Panel("Tokens, logins, refreshes", [(f"sum by (outcome) ({rate('klatch_auth_total')})", "{{outcome}}")], "cps", stack=True, width=12),
    Panel("Store: latency by operation (p99)", [(quantile(0.99, "klatch_store_operation_seconds", "operation"), "{{operation}}")], "s", width=12, least=0),
]

DASHBOARDS = [
    dashboard("overview", "Overview", "What people notice: requests, errors, turns, the error budget.", OVERVIEW),
    dashboard("cluster", "Cluster", "Who is in it, who owns what, and what they say to one another.", CLUSTER),
    dashboard("runtime", "Runtime", "Conversations and turns in the nodes' memory.", RUNTIME),
    dashboard("store", "Store", "Where conversations are kept: as the nodes see it, and Redis itself.", STORE),
    dashboard("nginx", "NGINX", "The edge. Latency by upstream stands in its access log, which is JSON.", NGINX, ("nginx_up", "nginx", True)),
    dashboard("node", "Node", "One node.", NODE, ("klatch_build_info", "klatch", False)),
]


def main():
    check = sys.argv[1:] == ["--check"]
    for made in DASHBOARDS:
        path = FOLDER / f"{made['uid']}.json"
        text = json.dumps(made, indent=2, ensure_ascii=False) + "\n"
        if not check:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            sys.exit(f"{path} is not what build.py makes: run it")


main()
