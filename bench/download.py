"""Does the downloader keep 64 connections busy, and is every file there exactly once?

    python bench/download.py [--files 2000] [--latency 50] [--rounds 5] [--out bench/results/download.json]

A server in a process of its own waits `latency` ms before it answers with a JPEG of 480 x 360, and counts requests, files and how
many connections wait at a time. Against it, in turns (A B C A B C ...), on the same files:

A  popnb.media.download: 64 connections, policy checked, each file opened and decoded, written under a temporary name, renamed, logged
B  the published study's way: 10 threads, a request of its own (and a connection) for each file, bytes written as they come
C  a bare loop: 64 connections of httpcore, bytes dropped. What the processor leaves possible here for a client in Python

Once, at the end: the bare loop through httpcore's connection pool, which the downloader does without, in processor time per file.

Bound: 64 / latency files a second, which no client with 64 connections can pass. `busy` is the number of requests that the server
holds in its waiting time, on average over the run: 64 would be all connections all the time. Medians, ratios of medians, every single time in the JSON.
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
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import httpcore
import numpy as np
import pandas as pd
from PIL import Image

from popnb.core import write_json
from popnb.media.download import download

CONNECTIONS,THREADS = 64,10


def picture():
    "A JPEG like a thumbnail, about 15 kB"
    rng = np.random.default_rng(0)
    out = BytesIO()
    Image.fromarray(rng.integers(0, 256, (20, 27, 3), np.uint8)).resize((480, 360)).save(out, "JPEG", quality=85)
    return out.getvalue()


class Server(asyncio.Protocol):
    "HTTP/1.1 as far as a benchmark needs it; `/count` tells what was asked, and forgets it"
    body,latency,seen,waiting,spent,most = b"",0.,[],0,0.,0

    def connection_made(self, transport): self.transport,self.rest = transport,b""

    def data_received(self, data):
        self.rest += data
        while b"\r\n\r\n" in self.rest:
            head,_,self.rest = self.rest.partition(b"\r\n\r\n")
            path = head.split(b" ", 2)[1].decode()
            close = b"connection: close" in head.lower()
            if path == "/count": self.answer(self.count(), b"application/json", close)
            else:
                Server.seen.append(path)
                Server.waiting += 1
                Server.most = max(Server.most, Server.waiting)
                asyncio.get_running_loop().call_later(Server.latency, self.later, time.perf_counter(), close)

    def later(self, since, close):
        Server.waiting -= 1
        Server.spent += time.perf_counter() - since
        self.answer(Server.body, b"image/jpeg", close)

    def count(self):
        got = Counter(Server.seen)
        text = json.dumps(dict(requests=len(Server.seen), files=len(got), most_at_once=Server.most, spent=Server.spent)).encode()
        Server.seen,Server.most,Server.spent = [],0,0.
        return text

    def answer(self, body, kind, close):
        if self.transport.is_closing(): return
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (kind, len(body)) + body)
        if close: self.transport.close()


def serve(latency, box):
    Server.body,Server.latency = picture(), latency
    async def main():
        server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0, backlog=1024)
        box.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()
    asyncio.run(main())


def popnb(url, ids, folder):
    t = pd.DataFrame({"video_id": ids, "thumbnail_url": [f"{url}/vi/{i}/hqdefault.jpg" for i in ids]})
    got = download(t, folder, allow=[url], thumbnail_base=url, concurrency=CONNECTIONS)
    assert (got.files.status == "ok").all(), got


def study(url, ids, folder):
    folder.mkdir()
    def one(i):
        q = urllib.request.Request(f"{url}/vi/{i}/hqdefault.jpg", headers={"User-Agent": "Mozilla/5.0"})
        with urllib.request.urlopen(q, timeout=10) as r: (folder/f"{i}.jpg").write_bytes(r.read())
    with ThreadPoolExecutor(THREADS) as pool: list(pool.map(one, ids))


def bare(url, ids, folder):
    "A connection for each of 64 hands, nothing else"
    async def main():
        todo = iter(ids)
        async def hand():
            async with httpcore.AsyncHTTPConnection(httpcore.URL(url).origin) as c:
                for i in todo:
                    r = await c.handle_async_request(httpcore.Request("GET", f"{url}/vi/{i}/hqdefault.jpg", headers=[("Host", "127.0.0.1")]))
                    await r.aread()
                    await r.aclose()
        await asyncio.gather(*(hand() for _ in range(CONNECTIONS)))
    asyncio.run(main())


def pooled(url, ids, folder):
    "The same through httpcore's pool"
    async def main():
        todo = iter(ids)
        async with httpcore.AsyncConnectionPool(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS) as pool:
            async def hand():
                for i in todo: await pool.request("GET", f"{url}/vi/{i}/hqdefault.jpg")
            await asyncio.gather(*(hand() for _ in range(CONNECTIONS)))
    asyncio.run(main())


WAYS = {"popnb, 64 connections": popnb, "study's way, 10 threads": study, "bare loop, 64 connections": bare}


def measure(url, ids, rounds, d):
    "Every way `rounds` times, in turns, after a warm-up; what the server counted each time"
    runs = {k: [] for k in WAYS}
    for k in range(-1, rounds):
        for name,f in WAYS.items():
            some = ids[:200] if k < 0 else ids
            folder = d/f"{name[:5]}{k}"
            start = time.perf_counter()
            f(url, some, folder)
            seconds = time.perf_counter() - start
            count = json.loads(urllib.request.urlopen(f"{url}/count").read())
            assert (count["requests"], count["files"]) == (len(some), len(some)), ("lost or repeated", name, count)
            if f not in (bare, pooled):
                files = sorted(p.stem for p in folder.glob("*.jpg"))
                assert files == sorted(some) and {p.stat().st_size for p in folder.glob("*.jpg")} == {len(picture())}, ("lost", name)
                shutil.rmtree(folder)
            if k >= 0: runs[name].append(dict(seconds=seconds, busy=count.pop("spent")/seconds, **count))
    return runs


def processor_ms(f, url, ids, d):
    start = time.process_time()
    f(url, ids, d)
    return (time.process_time() - start)/len(ids)*1000


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--files", type=int, default=2000)
    p.add_argument("--latency", type=float, nargs="+", default=[50., 150.], help="ms; several are measured one after the other")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--out", type=Path, default=Path(__file__).parent/"results"/"download.json")
    a = p.parse_args()
    ids = [f"b{i:010d}" for i in range(a.files)]
    result = dict(machine=dict(platform=platform.platform(), cpus=os.cpu_count(), load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None),
        versions=dict(python=platform.python_version(), **{o: version(o) for o in ("popnb", "httpcore", "h11", "anyio", "pillow")}),
        settings=dict(files=a.files, rounds=a.rounds, connections=CONNECTIONS, threads=THREADS, bytes_per_file=len(picture())), latencies={})
    for ms in a.latency:
        d,box = Path(tempfile.mkdtemp()),multiprocessing.Queue()
        server = multiprocessing.Process(target=serve, args=(ms/1000, box), daemon=True)
        server.start()
        try:
            url = f"http://127.0.0.1:{box.get(timeout=30)}"
            runs = measure(url, ids, a.rounds, d)
            cost = {f.__name__: processor_ms(f, url, ids[:300], d) for f in (bare, pooled)}
        finally:
            server.terminate(), server.join()
            shutil.rmtree(d)
        bound = CONNECTIONS/(ms/1000)
        print(f"\n{a.files:,} files, {ms:g} ms, bound {bound:,.0f} files/s, {a.rounds} rounds in turns; every file asked once and there: yes")
        out = {}
        for name,rs in runs.items():
            m = statistics.median(r["seconds"] for r in rs)
            out[name] = dict(runs=rs, median_s=m, per_s=a.files/m, of_bound=a.files/m/bound, busy=statistics.median(r["busy"] for r in rs), most_at_once=max(r["most_at_once"] for r in rs))
            print(f"  {name:32}{a.files/m:8,.0f} files/s   {out[name]['of_bound']:5.2f} of the bound   {out[name]['busy']:5.1f} connections busy   at most {out[name]['most_at_once']}")
        print(f"  load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors" if hasattr(os, "getloadavg") else "")
        first,other,base = (o["median_s"] for o in out.values())
        out |= dict(bound_per_s=bound, times_the_study=other/first, of_bare=base/first)
        out["processor_ms_per_file"] = cost
        print(f"  processor time of a request: {cost['bare']:.2f} ms, through the pool {cost['pooled']:.2f} ms")
        print(f"  {other/first:.1f} times as fast as the study's way; {base/first:.2f} of the bare loop")
        result["latencies"][f"{ms:g} ms"] = out | dict(load_after=os.getloadavg()[0] if hasattr(os, "getloadavg") else None)
    write_json(a.out, result)
    print(f"\n{a.out}")


if __name__ == "__main__": sys.exit(main())
