#!/usr/bin/env python3
"""Measures Weir in front of a database that holds the data of data.py: refusals, estimates, probes, memory.

Usage: real.py KIND DATABASE_URL DATABASE_PID END_SECONDS WEIR_BINARY [PART...]
KIND is prometheus or victoriametrics, PART refusals, estimates, probes or memory0 to memory3.
"""

import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

KIND, URL, PID, END, WEIR = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), os.path.abspath(sys.argv[5])
PORT, ADMIN = 29099, 29098
SIX_HOURS = 6 * 3600 - 60
SELECTORS = [
    "c00_total", "mem_usage", "req_dur_bucket", 'c01_total{job="api"}', 'c01_total{job!="api"}',
    'c01_total{job=~"api|db"}', 'c01_total{job!~"api|db"}', 'c02_total{instance="10.0.0.3:9100"}',
    'c02_total{instance=~"10.0.0.[1-4]:9100"}', 'c02_total{path="/p1",job="web"}', 'c02_total{path=~"/p[0-4]"}',
    'req_dur_bucket{le="+Inf"}', 'req_dur_bucket{le=~"0.*"}', 'req_dur_bucket{job="db",le="0.1"}', '{job="api"}',
    '{job=~"api|web"}', '{job="api",path="/p3"}', '{instance="10.0.0.7:9100"}', '{path="/p9"}', '{path=~"/p[0-4]"}',
    '{__name__=~"g0[1-9]_level"}', '{__name__=~"g0[1-9]_level",path=~"/p[0-4]"}', '{__name__=~"c0.*"}',
    '{__name__=~"c1[0-4]_total",job="queue"}', '{__name__=~"c.*_total"}', '{__name__=~"c.*|g.*"}',
    '{__name__!~"c.*",job="cache"}', '{le="5"}', "no_such_metric", 'c03_total{nothing="x"}', 'mem_usage{job=~".*e.*"}',
    'http_requests_total{path!~"/p[1-9]"}',
]
ALL = '{__name__=~".+",job!="self"}'
# The same series. What matches everything is never asked about, and counts as too much whatever there is.
ALL_BY_NAME = '{__name__=~"c.*|g.*|h.*|m.*|r.*"}'
HEAVY = [
    ("sum by (job), 15 s steps", f"sum by(job)({ALL})", 15),
    ("raw, 15 s steps", ALL, 15),
    ("raw, 60 s steps", ALL, 60),
    ("raw, 300 s steps", ALL, 300),
]
DASHBOARD = [
    'http_requests_total{job="api",instance="10.0.0.1:9100"}', "sum by(instance)(rate(http_requests_total[5m]))",
    'rate(http_requests_total{job="api"}[5m])', "sum by(job)(rate(http_requests_total[5m]))",
    "histogram_quantile(0.99,sum by(le,job)(rate(req_dur_bucket[5m])))", "topk(10,mem_usage)",
    'count by(job)({__name__=~"g0[1-9]_level",path=~"/p[0-4]"})', "avg by(job)(g01_level)", "max(g02_level)",
    "mem_usage*on(job,instance)group_left()sum by(job,instance)(rate(http_requests_total[5m]))",
    'sum(rate(c05_total{job="db"}[1m]))/sum(rate(c06_total{job="db"}[1m]))', "absent(nonexistent_metric)",
    'increase(c07_total{path="/p1"}[1h])', "max_over_time(mem_usage[1h])", "sum(c08_total) - sum(c08_total offset 1h)",
]


def ask(base, path, **params):
    """Status, body and milliseconds; a long answer is read and thrown away."""
    host = base.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=300)
    connection.connect()
    began = time.perf_counter()
    connection.request("GET", f"{path}?{urllib.parse.urlencode(params)}")
    answer = connection.getresponse()
    body = answer.read(1 << 20)
    while answer.read(1 << 20):
        pass
    took = (time.perf_counter() - began) * 1e3
    connection.close()
    return answer.status, body, took


def weir(limits):
    """A Weir with these limits, its label table fetched."""
    folder = tempfile.mkdtemp()
    config = os.path.join(folder, "weir.yaml")
    with open(config, "w") as file:
        file.write(f"""
server: {{listen: "127.0.0.1:{PORT}", admin_listen: "127.0.0.1:{ADMIN}"}}
backends: [{{name: main, kind: {KIND}, urls: ["{URL}"], budget: {{memory: 16GiB}}}}]
limits: {{default: {{rate: {{queries: unlimited}}, {limits}}}}}
telemetry: {{log: warn}}
""")
    process = subprocess.Popen([WEIR, "proxy", "--config", config], cwd=folder, stderr=subprocess.DEVNULL)
    time.sleep(2)
    return process


def end(process):
    process.terminate()
    process.wait()


def through(path, **params):
    return ask(f"http://127.0.0.1:{PORT}", path, **params)


def metric(base, name, part=""):
    lines = ask(base, "/metrics")[1].decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name) and part in line)


def refusals():
    print("## Refusals, limit 10,000 series: ms of 20 warm ones (median, worst), and requests that the database ran")
    process = weir("per_query: {series: 10_000}")
    if KIND == "prometheus":
        ran = lambda: metric(URL, "prometheus_http_requests_total", '"/api/v1/query_range"')
    else:
        ran = lambda: metric(URL, "vm_http_requests_total", 'path="/api/v1/query_range"')
    before = ran()
    for name, query, seconds in [
        ("everything, 30 days", '{__name__=~".+"}', 30 * 86400),
        ("20,000 series, 6 h", 'sum by(job)({__name__=~"c.*|g.*|h.*|m.*|r.*"})', SIX_HOURS),
        ("20,000 series and no self, 6 h", f"sum by(job)({ALL})", SIX_HOURS),
    ]:
        params = {"query": query, "start": END - seconds, "end": END, "step": max(15, seconds // 1000)}
        status, body, cold = through("/api/v1/query_range", **params)
        warm = [through("/api/v1/query_range", **params) for _ in range(20)]
        assert status == 422 and all(answer[0] == 422 for answer in warm), (query, status, body)
        times = [answer[2] for answer in warm]
        print(f"{name}: first {cold:.1f}, warm {statistics.median(times):.2f} ({max(times):.2f})")
    print(f"ran: {ran() - before:.0f}")
    end(process)


def estimates():
    print("## Series estimated and counted, 6 h")
    process = weir("modes: {samples: shadow}, per_query: {samples: 1}")
    window, worst, within = f"{SIX_HOURS}s", 0.0, 0
    for selector in SELECTORS:
        cost = through("/api/v1/query_cost", query=f"last_over_time({selector}[{window}])", time=END)[1]
        one = json.loads(cost)["data"]["selectors"][0]
        truth = ask(URL, "/api/v1/query", query=f"count(last_over_time({selector}[{window}]))", time=END)[1]
        result = json.loads(truth)["data"]["result"]
        truth = int(result[0]["value"][1]) if result else 0
        error = abs(one["series"] - truth) / max(truth, 1)
        worst, within = max(worst, error), within + (error <= 0.02)
        print(f"{selector}: {one['series']} {truth} {one['source']} {error:.1%}")
    print(f"within 2 %: {within} of {len(SELECTORS)}, worst {worst:.1%}")
    end(process)


def resident():
    with open(f"/proc/{PID}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024


def memory(shape):
    """One heavy shape; restart the database before each, or what it kept hides the rise."""
    print("## Memory estimated and measured rise of the resident set, MB, over 6 h")
    process = weir("modes: {series: off, samples: off, points: off, memory: off}, per_query: {samples: 1}")
    for name, query, step in HEAVY[shape : shape + 1]:
        params = {"query": query.replace(ALL, ALL_BY_NAME), "start": END - SIX_HOURS, "end": END, "step": step}
        cost = json.loads(through("/api/v1/query_range_cost", **params)[1])["data"]["estimate"]
        base, peak, done = resident(), [0.0], threading.Event()

        def watch():
            while not done.wait(0.02):
                peak[0] = max(peak[0], resident())

        watcher = threading.Thread(target=watch)
        watcher.start()
        status, _, took = ask(URL, "/api/v1/query_range", nocache=1, **params)
        done.set()
        watcher.join()
        estimated, rise = cost["memoryBytes"] / 1e6, (peak[0] - base) * 1.048576
        print(f"{name}: {estimated:.0f} {rise:.0f} (from {base:.0f}), ratio {estimated / rise:.2f}, "
              f"HTTP {status}, {took / 1e3:.1f} s, series {cost['seriesTouched']}")
    end(process)


def probes():
    print("## Probes")
    process = weir("queue: {wait: 10s}")
    admin = f"http://127.0.0.1:{ADMIN}"
    for load in range(21):
        shift = load * 30 - 900
        for query in DASHBOARD:
            status, body, _ = through("/api/v1/query_range", query=query, start=END + shift - 3600,
                                      end=END + shift, step=60)
            assert status == 200, (query, body)
        if load == 0:
            first = metric(admin, "weir_probe_cache_total")
    last = metric(admin, "weir_probe_cache_total")
    print(f"dashboard of {len(DASHBOARD)} queries: {first:.0f} selectors probed at the first load, "
          f"{last - first:.0f} in 20 loads after it")
    end(process)
    process = weir("per_query: {series: 100_000, samples: 500M, points: 500M, memory: 8GiB}")
    for name, query, step in HEAVY[:1] + HEAVY[2:]:
        before = metric(admin, "weir_probe_seconds_sum")
        query = query.replace(ALL, ALL_BY_NAME)
        took = through("/api/v1/query_range", query=query, start=END - SIX_HOURS, end=END, step=step)
        probing = (metric(admin, "weir_probe_seconds_sum") - before) * 1e3
        print(f"{name}: probed {probing:.0f} ms of {took[2]:.0f} ms: {probing / took[2]:.1%}, HTTP {took[0]}")
    end(process)


for part in sys.argv[6:] or ["refusals", "estimates", "probes"]:
    if part.startswith("memory"):
        memory(int(part.removeprefix("memory")))
    else:
        {"refusals": refusals, "estimates": estimates, "probes": probes}[part]()
