"""As much of PromQL as is needed to hold queries to what is exported: names, labels, functions, and brackets that match.

It judges what people mistype. It does not judge types; Prometheus does that when it loads a rule.
"""

import re
from collections.abc import Mapping

TOKEN = re.compile(
    r"""\s*(?:
      (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<range>\[[^\]]*\])
    | (?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
    | (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
    | (?P<matcher>=~|!~|!=|==|>=|<=)
    | (?P<mark>[-+*/%^<>=(){},@])
    )""",
    re.VERBOSE,
)
RANGE = re.compile(r"\[(?:(?:\d+(?:ms|[smhdwy]))+|\$__rate_interval|\$__interval|\$__range)(?::(?:\d+[smhd])?)?\]")

AGGREGATIONS = {"sum", "min", "max", "avg", "count", "group", "topk", "bottomk", "quantile", "stddev", "count_values"}
FUNCTIONS = {
    "rate", "irate", "increase", "delta", "deriv", "histogram_quantile", "time", "vector", "absent", "absent_over_time",
    "max_over_time", "min_over_time", "avg_over_time", "sum_over_time", "count_over_time", "last_over_time", "clamp_min",
    "clamp_max", "label_replace", "changes", "resets", "round", "abs", "scalar", "predict_linear", "sort_desc",
}  # fmt: skip
GROUPING = {"by", "without", "on", "ignoring", "group_left", "group_right"}
WORDS = {"and", "or", "unless", "bool", "offset"}
TARGET_LABELS = {"job", "instance", "namespace", "pod", "service", "cluster", "node"}
"""Labels that the scraper adds."""
CLOSING = {"(": ")", "{": "}"}


def problems(query: str, samples: Mapping[str, set[str]]) -> list[str]:
    """What is wrong with `query`, given the samples there are and the labels of each."""
    found: list[str] = []
    tokens: list[tuple[str, str]] = []
    position = 0
    while position < len(query.rstrip()):
        match = TOKEN.match(query, position)
        if match is None:
            return [f"cannot be read from {query[position:][:20]!r}"]
        kind = str(match.lastgroup)
        tokens.append((kind, match.group(kind)))
        position = match.end()
    if not tokens:
        return ["is empty"]
    _Reader(tokens, samples, found).read()
    return found


class _Reader:
    """Goes through the tokens once; labels after `by` are held to all metrics of the query."""

    def __init__(self, tokens: list[tuple[str, str]], samples: Mapping[str, set[str]], found: list[str]) -> None:
        self._tokens = tokens
        self._samples = samples
        self._found = found
        self._open: list[str] = []
        self._at = 0
        self._metrics: list[str] = []
        self._grouped: list[str] = []

    def _peek(self) -> str:
        return self._tokens[self._at + 1][1] if self._at + 1 < len(self._tokens) else ""

    def read(self) -> None:
        while self._at < len(self._tokens):
            kind, text = self._tokens[self._at]
            if kind == "name":
                self._name(text)
            elif kind == "range" and not RANGE.fullmatch(text):
                self._found.append(f"{text} is no range")
            elif text in CLOSING:
                self._open.append(CLOSING[text])
                if text == "{":
                    self._found.append("a selector without a metric")
            elif text in CLOSING.values() and (not self._open or self._open.pop() != text):
                self._found.append(f"{text} closes nothing")
            self._at += 1
        if self._open:
            self._found.append(f"{self._open[-1]} is missing")
        if not self._metrics:
            self._found.append("names no metric")
        labels = set().union(*(self._samples.get(name, set()) for name in self._metrics)) | TARGET_LABELS
        self._found += [f"no metric of it has the label {label}" for label in self._grouped if label not in labels]

    def _name(self, name: str) -> None:
        if name in GROUPING:
            self._at += 1
            self._grouped += self._list()
        elif name in AGGREGATIONS | FUNCTIONS:
            if self._peek() not in ("(", *GROUPING):
                self._found.append(f"{name} is applied to nothing")
        elif name in WORDS:
            return
        elif self._peek() == "(":
            self._found.append(f"there is no function {name}")
        elif name not in self._samples:
            self._found.append(f"there is no metric {name}")
        else:
            self._metrics.append(name)
            if self._peek() == "{":
                self._at += 2
                self._matchers(name)

    def _list(self) -> list[str]:
        """Labels in brackets; ends on the closing one."""
        labels = []
        while self._at < len(self._tokens) and self._tokens[self._at][1] != ")":
            kind, text = self._tokens[self._at]
            if kind == "name":
                labels.append(text)
            self._at += 1
        return labels

    def _matchers(self, metric: str) -> None:
        """What is between braces; ends on the closing one."""
        while self._at < len(self._tokens) and self._tokens[self._at][1] != "}":
            parts = self._tokens[self._at : self._at + 3]
            kinds = [kind for kind, _ in parts]
            if kinds not in (["name", "matcher", "text"], ["name", "mark", "text"]):
                self._found.append(f"a matcher of {metric} cannot be read")
                return
            label, value = parts[0][1], parts[2][1][1:-1]
            if label not in self._samples[metric] | TARGET_LABELS:
                self._found.append(f"{metric} has no label {label}")
            if "~" in parts[1][1]:
                re.compile(value.replace("$", ""))
            self._at += 3
            if self._at < len(self._tokens) and self._tokens[self._at][1] == ",":
                self._at += 1
        if self._at >= len(self._tokens):
            self._found.append("} is missing")
