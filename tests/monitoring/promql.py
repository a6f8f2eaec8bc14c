"""What a PromQL expression asks for: its metrics, and of each the labels that it is matched or grouped by.

No parser: whether an expression is one, Prometheus says when it is asked. This only finds the names in it, and what it
does not understand it reports as a metric that nobody has, so that a mistake here fails the test and hides nothing.
"""

import re

WORDS = {
    "and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "bool", "offset", "atan2",
    "inf", "nan", "start", "end",
}
TOKEN = re.compile(
    r"""(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
      | (?P<labels>\{[^{}]*\})
      | (?P<range>\[[^\[\]]*\])
      | (?P<group>\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^()]*\))
      | (?P<number>\b\d[\w.]*)
      | (?P<name>[a-zA-Z_:][\w:]*)(?P<call>\s*\()?
      | (?P<other>.)""",
    re.X | re.S,
)
MATCHER = re.compile(r"([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)")


def strip_strings(text):
    """Empty strings in their place, so that nothing in them looks like a name or a bracket."""
    return re.sub(r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'""", '""', text)


def asked(expression):
    """{metric: labels}. Labels of `by` are demanded of the metrics in its brackets, which stand behind it in all of our
    queries; those of `on` of all metrics there are."""
    metrics, groups = {}, []
    tokens = list(TOKEN.finditer(strip_strings(expression)))
    for index, token in enumerate(tokens):
        if is_metric(tokens, index):
            labels = metrics.setdefault(token["name"], set())
            following = next((t for t in tokens[index + 1:] if not (t["other"] or "x").isspace()), None)
            if following is not None and following["labels"]:
                labels.update(MATCHER.findall(following["labels"]))
        elif token["group"]:
            # `without` and `ignoring` may name what is not there.
            word, names = token["group"].split("(", 1)
            if word.strip() in ("by", "on"):
                names = {name.strip() for name in names.rstrip(") ").split(",")} - {""}
                groups.append((index, word.strip(), names))
    for index, word, names in groups:
        for metric in metrics if word == "on" else meant(tokens, index):
            metrics[metric].update(names)
    return metrics


def is_metric(tokens, index):
    """A name that is no word of the language, is not called, and is no aggregation whose grouping stands before its brackets."""
    token = tokens[index]
    if not token["name"] or token["call"] or token["name"] in WORDS:
        return False
    following = next((t for t in tokens[index + 1:] if not (t["other"] or "x").isspace()), None)
    return following is None or not (following["group"] or "").startswith(("by", "without"))


def meant(tokens, index):
    """The metrics within the brackets that follow a grouping: `sum by (a) (…)`."""
    depth, found = 0, []
    for at, token in enumerate(tokens[index + 1:], index + 1):
        opens = (token["other"] == "(") + bool(token["call"])
        depth += opens
        if token["other"] == ")":
            depth -= 1
        if is_metric(tokens, at):
            found.append(token["name"])
        if depth == 0 and not (token["other"] or "x").isspace():
            break
    return found


def test():
    """Called by check.py before it relies on this."""
    assert asked('up{job="klatch"} == 0') == {"up": {"job"}}
    assert asked("vector(1)") == {}
    assert asked('sum by (le, route) (rate(a_bucket{x=~"b{c}"}[5m])) > 14.4 * 0.001') == {"a_bucket": {"x", "le", "route"}}
    assert asked("histogram_quantile(0.99, sum by (le) (rate(x_bucket[5m]))) / y") == {"x_bucket": {"le"}, "y": set()}
    assert asked("rate(nothing_like_it[5m])") == {"nothing_like_it": set()}
