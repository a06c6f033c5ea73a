#!/usr/bin/env python3
"""Latency at a paced rate: open loop over kept-alive connections, targets in interleaved rounds.

Usage: bench/paced.py RATE SECONDS ROUNDS NAME=PORT [NAME=PORT ...]; the first is what the others are compared with.
"""
import asyncio
import sys
import time

RATE, SECONDS, ROUNDS = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
TARGETS = [target.split('=') for target in sys.argv[4:]]
CONNECTIONS = 16
REQUEST = (b'GET /api/v1/query?query=up&time=1700000000 HTTP/1.1\r\nHost: x\r\n'
           b'Authorization: Basic dTpw\r\n\r\n')


async def one(port, offset, took):
    reader, writer = await asyncio.open_connection('127.0.0.1', int(port))
    gap = CONNECTIONS / RATE
    due = time.perf_counter() + 0.05 + offset * gap / CONNECTIONS
    for _ in range(int(SECONDS / gap)):
        await asyncio.sleep(max(0, due - time.perf_counter()))
        began = time.perf_counter()
        writer.write(REQUEST)
        head = await reader.readuntil(b'\r\n\r\n')
        length = int(head.lower().split(b'content-length:')[1].split(b'\r\n')[0])
        await reader.readexactly(length)
        took.append(time.perf_counter() - began)
        due += gap
    writer.close()


async def run(port):
    took = []
    await asyncio.gather(*(one(port, i, took) for i in range(CONNECTIONS)))
    return took


def quantile(values, q):
    return sorted(values)[min(len(values) - 1, int(len(values) * q))] * 1e3


print('| round | target | requests/s | p50, ms | p99, ms | p50 added | p99 added |')
print('|--|--|--|--|--|--|--|')
for round_number in range(1, ROUNDS + 1):
    base = None
    for name, port in TARGETS:
        took = asyncio.run(run(port))
        p50, p99 = quantile(took, 0.5), quantile(took, 0.99)
        base = base or (p50, p99)
        added = '%.3f | %.3f' % (p50 - base[0], p99 - base[1])
        print('| %d | %s | %.0f | %.3f | %.3f | %s |' % (round_number, name, len(took) / SECONDS, p50, p99, added))
