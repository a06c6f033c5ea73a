#!/usr/bin/env python3
"""Writes seeded series as OpenMetrics text: 40 metrics of 500 series each, a sample every 15 s.

Usage: data.py END_SECONDS HOURS > data.om
"""

import random
import sys

INTERVAL = 15
BUCKETS = ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "5", "+Inf"]


def label_sets():
    for job in ["api", "web", "db", "cache", "queue"]:
        for host in range(1, 11):
            for path in range(10):
                yield f'job="{job}",instance="10.0.0.{host}:9100",path="/p{path}"'


def counter(rng):
    value = rng.randrange(1000)
    while True:
        value += rng.randrange(20)
        yield value


def gauge(rng):
    value = rng.random() * 100
    while True:
        value += rng.random() - 0.5
        yield f"{value:.2f}"


def main():
    end, samples = int(sys.argv[1]), int(float(sys.argv[2]) * 3600 / INTERVAL)
    rng, out = random.Random(7), sys.stdout.write

    def emit(series, values):
        for n in range(samples):
            out(f"{series} {next(values)} {end - (samples - n) * INTERVAL}\n")

    for name in [f"c{n:02}" for n in range(28)] + ["http_requests"]:
        out(f"# TYPE {name} counter\n")
        for labels in label_sets():
            emit(f"{name}_total{{{labels}}}", counter(rng))
    for name in [f"g{n:02}_level" for n in range(1, 10)] + ["mem_usage"]:
        out(f"# TYPE {name} gauge\n")
        for labels in label_sets():
            emit(f"{name}{{{labels}}}", gauge(rng))
    out("# TYPE req_dur_bucket gauge\n")
    for labels in list(label_sets())[::10]:
        for bucket in BUCKETS:
            emit(f'req_dur_bucket{{{labels},le="{bucket}"}}', counter(rng))
    out("# EOF\n")


main()
