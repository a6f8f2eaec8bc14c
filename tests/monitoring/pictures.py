"""Draws dashboards as pictures, with their own queries from the Prometheus of a test: what a person would see in Grafana, for
the documentation and for whoever changes a panel. Called by check.py; needs matplotlib, and decides nothing.
"""

import json
import re
import time
from datetime import datetime, timezone

import matplotlib

matplotlib.use("Agg")
import matplotlib.dates
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter

from stack import SHIPPED, get

DRAWN = ["klatch-overview", "klatch-cluster", "klatch-store"]
MINUTES_SHOWN = 4
STEP_SECONDS = 2
LEGENDS_MAX = 8
SCALES = {"s": ("s", 1), "percentunit": ("%", 100), "bytes": ("MiB", 2**-20), "Bps": ("kB/s", 1e-3), "reqps": ("req/s", 1), "ops": ("op/s", 1), "wps": ("writes/s", 1), "cps": ("/s", 1)}


def draw(stack, folder):
    folder.mkdir(parents=True, exist_ok=True)
    # One moment for all, so that what is stacked stands at the same times.
    stack.drawn_at = time.time()
    for name in DRAWN:
        board = json.loads((SHIPPED / f"grafana/dashboards/{name}.json").read_text())
        picture(stack, board, folder / f"{name}.png")


def picture(stack, board, path):
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = plt.figure(figsize=(16, height * 0.34), dpi=80, facecolor="#f4f5f5")
    figure.suptitle(board["title"], x=0.01, y=0.995, ha="left", va="top", weight="bold")
    for panel in panels:
        at = panel["gridPos"]
        left, bottom = at["x"] / 24, 1 - (at["y"] + at["h"]) / height
        inner = (0.032, 0.018) if panel["type"] == "timeseries" else (0.005, 0.008)
        place = [left + inner[0], bottom * 0.975 + inner[1], at["w"] / 24 - inner[0] - 0.008, at["h"] / height * 0.975 - inner[1] - 0.02]
        axes = figure.add_axes(place)
        axes.set_title(panel["title"], fontsize=8, loc="left")
        (lines if panel["type"] == "timeseries" else number)(stack, panel, axes)
    for panel in board["panels"]:
        if panel["type"] == "row":
            figure.text(0.005, 1 - (panel["gridPos"]["y"] + 0.8) / height * 0.975 - 0.012, panel["title"], fontsize=9, color="#555")
    figure.savefig(path)
    plt.close(figure)


def series(stack, target):
    """(legend, times, values) of each."""
    expression = target["expr"].replace("$instance", ".*").replace("$__rate_interval", "15s")
    end = stack.drawn_at
    answer = get(f"{stack.prometheus}/api/v1/query_range", query=expression, start=end - MINUTES_SHOWN * 60, end=end, step=STEP_SECONDS)
    for one in json.loads(answer)["data"]["result"]:
        legend = re.sub(r"\{\{(\w+)\}\}", lambda match: one["metric"].get(match[1], ""), target["legendFormat"])
        times = [datetime.fromtimestamp(float(at), timezone.utc) for at, _ in one["values"]]
        yield legend, times, [float(value) for _, value in one["values"]]


def lines(stack, panel, axes):
    defaults = panel["fieldConfig"]["defaults"]
    unit, scale = SCALES.get(defaults["unit"], ("", 1))
    drawn = [(legend, times, [value * scale for value in values]) for target in panel["targets"] for legend, times, values in series(stack, target)]
    stacked = defaults["custom"]["stacking"]["mode"] == "normal"
    if stacked and drawn:
        times = sorted({at for _, own, _ in drawn for at in own})
        filled = [[dict(zip(own, values)).get(at, 0) for at in times] for _, own, values in drawn]
        axes.stackplot(times, filled, labels=[legend for legend, _, _ in drawn], alpha=0.7)
    else:
        for legend, times, values in drawn:
            axes.plot(times, values, label=legend, linewidth=1)
    if not drawn:
        axes.text(0.5, 0.5, "no data", ha="center", va="center", color="grey", transform=axes.transAxes)
        return
    axes.xaxis.set_major_formatter(matplotlib.dates.DateFormatter("%H:%M"))
    axes.xaxis.set_major_locator(matplotlib.dates.MinuteLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.tick_params(labelsize=6)
    axes.set_ylabel(unit, fontsize=6)
    axes.grid(alpha=0.3)
    axes.set_ylim(bottom=0)
    if len(drawn) <= LEGENDS_MAX:
        axes.legend(fontsize=6, loc="upper left", framealpha=0.6)


def number(stack, panel, axes):
    unit, scale = SCALES.get(panel["fieldConfig"]["defaults"]["unit"], ("", 1))
    found = [values[-1] for target in panel["targets"] for _, _, values in series(stack, target)]
    level = [step for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"] if found and (step["value"] is None or found[0] >= step["value"])]
    colour = {"yellow": "#b58900"}.get(level[-1]["color"], level[-1]["color"]) if level else "grey"
    days = unit == "s" and found and found[0] > 2 * 86400
    shown = f"{found[0] / 86400:.1f} d" if days else f"{found[0] * scale:.4g} {unit}" if found else "no data"
    axes.text(0.5, 0.45, shown, ha="center", va="center", fontsize=16, color=colour)
    axes.set_xticks([])
    axes.set_yticks([])
