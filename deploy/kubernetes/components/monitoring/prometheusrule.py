#!/usr/bin/env python3
"""Makes prometheusrule.yaml of the rule files of deploy/monitoring/prometheus/rules, which any Prometheus reads.

Prints it with --print, else writes it. Needs PyYAML.
"""
import sys
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
RULES = HERE.parents[2] / "monitoring" / "prometheus" / "rules"
HEAD = "# Made by prometheusrule.py of deploy/monitoring/prometheus/rules: change those.\n"


def made() -> str:
    files = sorted(RULES.glob("*.yaml"))
    if not files:
        sys.exit(f"there are no rules in {RULES}")
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "klatch", "namespace": "klatch"},
        "spec": {"groups": groups},
    }
    return HEAD + yaml.safe_dump(rule, sort_keys=False, width=120, allow_unicode=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["--print"]:
        print(made(), end="")
    else:
        (HERE / "prometheusrule.yaml").write_text(made())
