#!/usr/bin/env python3
"""One abusive tenant beside a well-behaved one, through a Weir before the data of bench/data.py.

Usage: bench/fairness.py WEIR_PORT END_SECONDS DATABASE_PID SECONDS
"""
import http.client
import sys
import threading
import time
import urllib.parse

PORT, END, PID, SECONDS = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
stop = time.time() + SECONDS
heavy, light, waits = {}, [], []


def ask(connection, path, parameters, tenant):
    target = path + '?' + urllib.parse.urlencode(parameters)
    connection.request('GET', target, headers={'X-Scope-OrgID': tenant})
    answer = connection.getresponse()
    answer.read()
    return answer.status, answer.getheader('server-timing')


def abuse(i):
    graph = {'query': 'sum by (job) ({__name__=~"c%d.*_total"})' % (i % 3), 'start': END - 21600, 'end': END, 'step': 15}
    while time.time() < stop:
        connection = http.client.HTTPConnection('127.0.0.1', PORT, timeout=90)
        status, _ = ask(connection, '/api/v1/query_range', graph, 'noisy')
        connection.close()
        heavy[status] = heavy.get(status, 0) + 1
        if status != 200:
            time.sleep(1)


def behave(i):
    connection = http.client.HTTPConnection('127.0.0.1', PORT, timeout=30)
    while time.time() < stop:
        began = time.time()
        query = {'query': 'sum(http_requests_total{job="api"})', 'time': END - 60 * i}
        status, timing = ask(connection, '/api/v1/query', query, 'good')
        light.append((status, time.time() - began))
        if timing:
            waits.append(float(timing.split('dur=')[1].split(',')[0]))
        time.sleep(0.1)


def quantile(values, q):
    return sorted(values)[min(len(values) - 1, int(len(values) * q))]


threads = [threading.Thread(target=abuse, args=(i,)) for i in range(200)]
threads += [threading.Thread(target=behave, args=(i,)) for i in range(4)]
for thread in threads:
    thread.start()
peak = 0
while time.time() < stop:
    with open(f'/proc/{PID}/status') as status:
        peak = max(peak, *(int(line.split()[1]) for line in status if line.startswith('VmRSS')))
    time.sleep(0.1)
for thread in threads:
    thread.join()
times = [took for status, took in light if status == 200]
print('heavy, by status:', heavy)
print('light:', len(light), 'refused:', sum(status != 200 for status, _ in light))
print('light, s: p50 %.3f p99 %.3f' % (quantile(times, 0.5), quantile(times, 0.99)))
print('wait for budget, ms: p50 %.1f p99 %.1f' % (quantile(waits, 0.5), quantile(waits, 0.99)))
print('largest resident set of the database, MB:', peak // 1024)
