"""B8: a monitoring system that reads /metrics. usage: python metrics.py URL

Prints each sample of `signald_…` with its name, labels and value.
"""

import json
import re
import sys

import httpx2

SAMPLE = re.compile(r"^(signald_\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')

answer = httpx2.get(f"{sys.argv[1]}/metrics", timeout=10).raise_for_status()
samples = [
    {"name": name, "labels": dict(LABEL.findall(labels)), "value": float(value)}
    for name, labels, value in SAMPLE.findall(answer.text)
]
print(json.dumps({"saw": "samples", "type": answer.headers["content-type"], "samples": samples}))
