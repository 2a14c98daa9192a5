"""Does the downloader keep 64 connections busy, and is every file downloaded exactly once?

    python bench/download.py [--files 2000] [--latency 50] [--rounds 5] [--out bench/results/download.json]

A server in its own process waits `latency` ms before it responds with a JPEG of 480 x 360, and counts requests, files
and concurrent requests. The ways download the same files from it in alternating rounds (A B C A B C ...):

A  popnb.media.download: 64 connections; every URL checked, every file opened and decoded, written under a temporary
   name, renamed and logged
B  the published study: 10 threads, one request and one connection per file, bytes written as they arrive
C  a bare loop: 64 connections of httpcore, bytes discarded; the upper limit of a Python client on this processor

Once, at the end: the processor time per request of the bare loop and of the same loop through httpcore's connection
pool, which the downloader does not use.

Bound: 64 / latency files per second, the limit of any client with 64 connections. `busy` is the mean number of requests
that the server delays at a time; 64 means that all connections are in use all the time. Medians, ratios of medians and
every single time go into the JSON.
"""
import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import httpcore
import numpy as np
import pandas as pd
from PIL import Image

from timing import load, versions
from popnb.core import write_json
from popnb.media.download import download

CONNECTIONS = 64
THREADS = 10


def thumbnail_jpeg():
    "A JPEG with the size of a thumbnail, about 15 kB"
    rng = np.random.default_rng(0)
    out = BytesIO()
    Image.fromarray(rng.integers(0, 256, (20, 27, 3), np.uint8)).resize((480, 360)).save(out, "JPEG", quality=85)
    return out.getvalue()


class Server(asyncio.Protocol):
    "The part of HTTP/1.1 that the benchmark needs; `/count` returns the counters and sets them to zero"
    body,latency = b"",0.
    paths,waiting,most,delayed = [],0,0,0.

    def connection_made(self, transport):
        self.transport = transport
        self.buffer = b""

    def data_received(self, data):
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head,_,self.buffer = self.buffer.partition(b"\r\n\r\n")
            path = head.split(b" ", 2)[1].decode()
            close = b"connection: close" in head.lower()
            if path == "/count": self.respond(self.count(), b"application/json", close)
            else: self.delay(path, close)

    def delay(self, path, close):
        Server.paths.append(path)
        Server.waiting += 1
        Server.most = max(Server.most, Server.waiting)
        asyncio.get_running_loop().call_later(Server.latency, self.send_file, time.perf_counter(), close)

    def send_file(self, since, close):
        Server.waiting -= 1
        Server.delayed += time.perf_counter() - since
        self.respond(Server.body, b"image/jpeg", close)

    def count(self):
        counts = dict(requests=len(Server.paths), files=len(Counter(Server.paths)), most_at_once=Server.most,
            spent=Server.delayed)
        Server.paths,Server.most,Server.delayed = [],0,0.
        return json.dumps(counts).encode()

    def respond(self, body, kind, close):
        if self.transport.is_closing(): return
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (kind, len(body))
        self.transport.write(head + body)
        if close: self.transport.close()


def serve(latency, queue):
    "Run the server with a latency in seconds; its port goes into the queue"
    Server.body,Server.latency = thumbnail_jpeg(),latency
    async def main():
        server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0, backlog=1024)
        queue.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()
    asyncio.run(main())


def popnb(url, ids, folder):
    "popnb's downloader"
    t = pd.DataFrame({"video_id": ids, "thumbnail_url": [f"{url}/vi/{i}/hqdefault.jpg" for i in ids]})
    result = download(t, folder, allow=[url], thumbnail_base=url, concurrency=CONNECTIONS)
    assert (result.files.status == "ok").all(), result


def study(url, ids, folder):
    "The published study: threads, and a connection per file"
    folder.mkdir()
    def one(i):
        request = urllib.request.Request(f"{url}/vi/{i}/hqdefault.jpg", headers={"User-Agent": "Mozilla/5.0"})
        with urllib.request.urlopen(request, timeout=10) as r: (folder/f"{i}.jpg").write_bytes(r.read())
    with ThreadPoolExecutor(THREADS) as pool: list(pool.map(one, ids))


def bare(url, ids, folder):
    "64 tasks with one httpcore connection each; the bytes are discarded"
    async def main():
        todo = iter(ids)
        async def task():
            async with httpcore.AsyncHTTPConnection(httpcore.URL(url).origin) as c:
                for i in todo:
                    path,headers = f"{url}/vi/{i}/hqdefault.jpg",[("Host", "127.0.0.1")]
                    r = await c.handle_async_request(httpcore.Request("GET", path, headers=headers))
                    await r.aread()
                    await r.aclose()
        await asyncio.gather(*(task() for _ in range(CONNECTIONS)))
    asyncio.run(main())


def pooled(url, ids, folder):
    "The bare loop through httpcore's connection pool"
    async def main():
        todo = iter(ids)
        limits = dict(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
        async with httpcore.AsyncConnectionPool(**limits) as pool:
            async def task():
                for i in todo: await pool.request("GET", f"{url}/vi/{i}/hqdefault.jpg")
            await asyncio.gather(*(task() for _ in range(CONNECTIONS)))
    asyncio.run(main())


WAYS = {"popnb, 64 connections": popnb, "published study, 10 threads": study, "bare loop, 64 connections": bare}


def check_files(folder, ids, name):
    "Assert that the folder holds every file once and whole"
    files = sorted(p.stem for p in folder.glob("*.jpg"))
    sizes = {p.stat().st_size for p in folder.glob("*.jpg")}
    assert files == sorted(ids) and sizes == {len(thumbnail_jpeg())}, ("lost", name)


def measure(url, ids, rounds, d):
    "Run every way `rounds` times in alternating rounds after a warm-up; seconds and the server's counts of each run"
    runs = {k: [] for k in WAYS}
    for k in range(-1, rounds):
        for name,f in WAYS.items():
            batch = ids[:200] if k < 0 else ids
            folder = d/f"{name[:5]}{k}"
            start = time.perf_counter()
            f(url, batch, folder)
            seconds = time.perf_counter() - start
            count = json.loads(urllib.request.urlopen(f"{url}/count").read())
            assert (count["requests"], count["files"]) == (len(batch), len(batch)), ("lost or repeated", name, count)
            if f is not bare:
                check_files(folder, batch, name)
                shutil.rmtree(folder)
            if k >= 0: runs[name].append(dict(seconds=seconds, busy=count.pop("spent")/seconds, **count))
    return runs


def processor_ms(f, url, ids, d):
    "Processor milliseconds per request"
    start = time.process_time()
    f(url, ids, d)
    return (time.process_time() - start)/len(ids)*1000


def run_at(ms, a, ids):
    "Measure every way at one latency: the runs of each way, and processor time per request"
    d,queue = Path(tempfile.mkdtemp()),multiprocessing.Queue()
    server = multiprocessing.Process(target=serve, args=(ms/1000, queue), daemon=True)
    server.start()
    try:
        url = f"http://127.0.0.1:{queue.get(timeout=30)}"
        runs = measure(url, ids, a.rounds, d)
        return runs,{f.__name__: processor_ms(f, url, ids[:300], d) for f in (bare, pooled)}
    finally:
        server.terminate()
        server.join()
        shutil.rmtree(d)


def summarise(ms, a, runs, cost):
    "Print and return medians and ratios of one latency"
    bound = CONNECTIONS/(ms/1000)
    print(f"\n{a.files:,} files, {ms:g} ms, bound {bound:,.0f} files/s, {a.rounds} alternating rounds;"
          " every file requested once and complete: yes")
    out = {}
    for name,rs in runs.items():
        m = statistics.median(r["seconds"] for r in rs)
        out[name] = o = dict(
            runs=rs, median_s=m, per_s=a.files/m, of_bound=a.files/m/bound,
            busy=statistics.median(r["busy"] for r in rs), most_at_once=max(r["most_at_once"] for r in rs))
        print(f"  {name:32}{o['per_s']:8,.0f} files/s   {o['of_bound']:5.2f} of the bound"
              f"   {o['busy']:5.1f} connections busy   at most {o['most_at_once']}")
    if load() is not None: print(f"  load average {load():.1f} on {os.cpu_count()} processors")
    first,other,base = (o["median_s"] for o in out.values())
    print(f"  processor time of a request: {cost['bare']:.2f} ms, through the pool {cost['pooled']:.2f} ms")
    print(f"  {other/first:.1f} times as fast as the study; {base/first:.2f} of the bare loop")
    return out | dict(bound_per_s=bound, times_the_study=other/first, of_bare=base/first,
        processor_ms_per_file=cost, load_after=load())


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--files", type=int, default=2000, help="files per run")
    p.add_argument("--latency", type=float, nargs="+", default=[50., 150.], help="ms; several run one after the other")
    p.add_argument("--rounds", type=int, default=5, help="repetitions of each measurement")
    p.add_argument("--out", type=Path, default=Path(__file__).parent/"results"/"download.json", help="JSON file")
    a = p.parse_args()
    ids = [f"b{i:010d}" for i in range(a.files)]
    settings = dict(files=a.files, rounds=a.rounds, connections=CONNECTIONS, threads=THREADS,
        bytes_per_file=len(thumbnail_jpeg()))
    result = dict(
        machine=dict(platform=platform.platform(), cpus=os.cpu_count(), load=load()),
        versions=versions(("popnb", "httpcore", "h11", "anyio", "pillow")), settings=settings, latencies={})
    for ms in a.latency:
        runs,cost = run_at(ms, a, ids)
        result["latencies"][f"{ms:g} ms"] = summarise(ms, a, runs, cost)
    write_json(a.out, result)
    print(f"\n{a.out}")


if __name__ == "__main__": sys.exit(main())
