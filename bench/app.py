"""Does the page of a run lose requests, or memory, when 200 come at once, and what does it refuse?

    python bench/app.py [--rounds 5] [--requests 200] [--clips .2] [--out bench/results/app.json]

A run on simulated videos is trained in a temporary folder, and `popnb app` serves it from a process of its own. In each
round so many requests are sent at once over HTTP: the titles differ, so that an answer that belongs to another request
is noticed; a share of them uploads a clip first, another share are calls of agents. Written are lost and exchanged
answers, latencies, and after each round the memory of the server and of its workers and the files that it holds. At
last hostile requests are sent, whose refusals are written as they are said.
"""
import argparse
import base64
import http.client
import json
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from popnb.core import child_environment, write_json
from popnb.data.table import write_table
from popnb.models.predictor import load
from popnb.runs.train import train
from popnb.simulation.clips import ClipSpec, write_clip

WORDS = np.array("cat dog soup rain lake road tree bird moon fish milk snow".split())
FORM,JSON = ({"Content-Type": o} for o in ("multipart/form-data; boundary=x", "application/json"))
FILE = {"meta": {"_type": "gradio.FileData"}}


def trained(folder, rng, clips=24, n=240):
    "A run on titles and clips, whose files are few and shared by many videos"
    for k in range(clips): write_clip(ClipSpec(k, 45, brightness=rng.uniform(.2, .8)), folder/f"clip_{k}.mp4")
    asks = rng.random(n) < .5
    titles = [" ".join(rng.choice(WORDS, 3, replace=False)) + "?"*int(a) for a in asks]
    views = np.round(np.exp(7+rng.normal(size=n//6)[np.arange(n) % (n//6)]+.9*asks+.4*rng.normal(size=n)))
    df = pd.DataFrame({"video_id": [f"v{i}" for i in range(n)], "author": [f"c{i % (n//6)}" for i in range(n)],
        "title": titles, "views": views, "video_path": [str(folder/f"clip_{i % clips}.mp4") for i in range(n)]})
    write_table(df, folder/"videos.parquet")
    train("tabular", folder/"videos.parquet", folder/"run", inputs=["title", "video"], members=1, rounds=100,
        patience=20, encoders=None, n_boot=50, store=folder/"store")
    return load(folder/"run")


def served(folder):
    "Process of the server, and what it says about itself"
    call = [sys.executable, "-m", "popnb.cli.main", "app", str(folder/"run"), "--port", "0", "--json", "--mcp",
        "--no-open", "--store", str(folder/"store")]
    (folder/"tmp").mkdir()
    p = subprocess.Popen(call, env=child_environment(TMPDIR=str(folder/"tmp")), stdout=subprocess.PIPE, text=True)
    return p,json.loads(p.stdout.readline())


class User:
    "Requests over HTTP, each with a connection of its own"
    def __init__(self, port): self.port = port

    def ask(self, path, body=None, **headers):
        "Status and body"
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        try:
            c.request("GET" if body is None else "POST", path, body, headers)
            r = c.getresponse()
            return r.status,r.read().decode()
        finally: c.close()

    def upload(self, name, data):
        "Name of an uploaded file on the server"
        head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
        status,text = self.ask("/gradio_api/upload", head+data+b"\r\n--x--\r\n", **FORM)
        return json.loads(text)[0] if status == 200 else f"{status}: {text}"

    def call(self, name, **options):
        "Answer of an endpoint, or its error"
        status,text = self.ask(f"/gradio_api/call/v2/{name}", json.dumps(options), **JSON)
        if status != 200: return f"{status}: {text}"
        text = self.ask(f"/gradio_api/call/{name}/{json.loads(text)['event_id']}")[1]
        kind,data = re.search(r"event: (complete|error)\ndata: (.*)", text).groups()
        return json.loads(data)[0] if kind == "complete" else data

    def agent(self, name, **options):
        "Answer of a tool, or its error"
        body = dict(jsonrpc="2.0", id=1, method="tools/call", params=dict(name=name, arguments=options))
        text = self.ask("/mcp", json.dumps(body), Accept="application/json, text/event-stream", **JSON)[1]
        found = json.loads(text)["result"]
        return found["content"][0]["text"] if found.get("isError") else found["structuredContent"]


def marked(clip, i):
    "A clip with the same content and size, and other bytes"
    return clip+struct.pack(">I4sQ", 16, b"free", i)


def request(user, i, kind, title, clip):
    "Prediction and latency of one request; an exception is a loss"
    start = time.time()
    try:
        if kind == "agent": found = user.agent("score_video", title=title)
        elif kind == "clip":
            path = user.upload(f"{i}.mp4", marked(clip, i))
            found = user.call("score_video", title=title, clip=FILE | {"path": path})
        else: found = user.call("score_video", title=title)
        return found["prediction"],time.time()-start
    except Exception as e: return f"{type(e).__name__}: {e}"[:200],time.time()-start


def memory(pid):
    "Megabytes of the process and of its children"
    def rss(p): return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{p}/status").read_text())[1])/1024
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    more = [c for t in Path(f"/proc/{pid}/task").iterdir() for c in (t/"children").read_text().split()]
    return round(rss(pid)),round(sum(rss(c) for c in {*children, *more}))


def bomb(side=60_000):
    "A PNG file of a few bytes that announces billions of pixels"
    part = lambda k,d: struct.pack(">I", len(d))+k+d+struct.pack(">I", zlib.crc32(k+d))
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n"+part(b"IHDR", head)+part(b"IDAT", zlib.compress(bytes(100_000)))+part(b"IEND", b"")


def hostile(user, clip):
    "What is said to hostile requests"
    def table(text):
        found = user.call("score_table", table=FILE | {"path": user.upload("t.csv", text)})
        if isinstance(found, str): return found
        return user.ask(f"/gradio_api/file={found['path']}")[1]
    def file(name, data): return FILE | {"path": user.upload(name, data)}
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(1)
        url = f"http://127.0.0.1:{trap.getsockname()[1]}/a.mp4"
        said = {
            "upload of 4 GB": user.ask("/gradio_api/upload", "", **{"Content-Length": str(4<<30)}, **FORM),
            "upload without a length": user.ask("/gradio_api/upload", iter([b"x"]), **{"Transfer-Encoding": "chunked"}),
            "HTML as mp4": user.call("score_video", clip=file("a.mp4", b"<!doctype html><script>alert(1)</script>")),
            "playlist of addresses as mp4": user.call("score_video", clip=file("a.mp4",
                f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{url}\n#EXT-X-ENDLIST\n".encode())),
            "half a clip": user.call("score_video", clip=file("a.mp4", clip[:len(clip)//3])),
            "picture of 3.6 billion pixels": user.call("score_video", thumbnail=file("a.png", bomb())),
            "script as title": user.call("score_video", title="<script>alert(1)</script>")["sentences"][0],
            "title of 10,000 characters": user.call("score_video", title="x"*10_000),
            "address as clip": user.call("score_video", clip=FILE | {"path": url}),
            "address as clip, beside a path": user.call("score_video", clip=FILE | {"path": "a.mp4", "url": url}),
            "file of the server as clip": user.call("score_video", clip=FILE | {"path": "/etc/passwd"}),
            "address as clip of an agent": user.agent("score_video", clip_base64=url),
            "HTML as clip of an agent": user.agent("score_video",
                clip_base64=base64.b64encode(b"<!doctype html>").decode()),
            "table of formulas": table(b"title,note\n=1+1,=HYPERLINK(1)\n"),
            "table without a known column": table(b"a,b\n1,2\n"), "empty table": table(b""),
            "table of 100,000 rows": table(b"title\n"+b"x\n"*100_000),
            "name of an upload that climbs": re.sub(r"^/uploads-\w+/files/\w{64}", "…",
                user.upload("../../../a.mp4", clip)),
            "file of the server": user.ask("/gradio_api/file=/etc/passwd"),
            "proxy": user.ask("/gradio_api/proxy=https://example.com/"),
            "another name of the server": user.ask("/", Host="evil.example"),
            "page of another origin": user.ask("/config", Origin="http://evil.example"),
        }
        try: trap.accept(); said["requests that the addresses received"] = "at least one"
        except TimeoutError: said["requests that the addresses received"] = "none"
    return said


def measured(a, folder, model, process, user, rng):
    "Results of all rounds and of the hostile requests"
    clip = (folder/"clip_0.mp4").read_bytes()
    kinds = rng.permutation(["clip"]*round(a.clips*a.requests)+["agent"]*round(a.clips*a.requests)
        +["title"]*(a.requests-2*round(a.clips*a.requests)))
    titles = [" ".join(rng.choice(WORDS, 3))+"?"*int(i % 2) for i in range(a.requests)]
    (folder/"marked.mp4").write_bytes(marked(clip, 0))
    rows = pd.DataFrame({"video_id": [f"{i}" for i in range(a.requests)], "title": titles,
        "video_path": [str(folder/"marked.mp4") if k == "clip" else None for k in kinds]})
    truth = model.predict(rows)["prediction"].to_numpy()
    result = dict(rounds=a.rounds, requests=a.requests, clips=a.clips, memory_at_start=memory(process.pid), by_round=[])
    for r in range(a.rounds):
        with ThreadPoolExecutor(a.requests) as pool:
            ask = lambda i: request(user, r*a.requests+i, kinds[i], titles[i], clip)
            got = list(pool.map(ask, range(a.requests)))
        lost = [v for v,_ in got if isinstance(v, str)]
        other = sum(not isinstance(v, str) and abs(v-t) > 1e-6 for (v,_),t in zip(got, truth))
        seconds = np.array([s for _,s in got])
        held = [o for o in (folder/"tmp").rglob("*") if o.is_file()]
        result["by_round"].append(dict(lost=len(lost), first_lost=lost[:1], other_answer=int(other),
            p50=round(float(np.median(seconds)), 2), p95=round(float(np.quantile(seconds, .95)), 2),
            memory=memory(process.pid), files=len(held), mb=round(sum(o.stat().st_size for o in held)/2**20, 1)))
        print(f"round {r+1}: {result['by_round'][-1]}", flush=True)
    result["alone"] = [round(request(user, 0, k, titles[0], clip)[1], 2) for k in ("title", "clip", "agent")]
    said = hostile(user, clip)
    result["hostile"] = {k: v if isinstance(v, str) else list(v) if isinstance(v, tuple) else v for k,v in said.items()}
    for k,v in result["hostile"].items(): print(f"{k}: {v}", flush=True)
    return result


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=5, help="rounds of requests")
    p.add_argument("--requests", type=int, default=200, help="requests at once in a round")
    p.add_argument("--clips", type=float, default=.2, help="share of requests with a clip; as many come from agents")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path, default=Path(__file__).parent/"results"/"app.json", help="JSON file")
    a = p.parse_args()
    rng,start = np.random.default_rng(a.seed),time.time()
    with tempfile.TemporaryDirectory() as d:
        folder = Path(d)
        model = trained(folder, rng)
        process,about = served(folder)
        user = User(int(re.search(r":(\d+)/", about["address"])[1]))
        try: result = measured(a, folder, model, process, user, rng)
        finally: process.send_signal(signal.SIGINT)
        result["exit_code"],result["left"] = process.wait(60),[o.name for o in (folder/"tmp").iterdir()]
    write_json(a.out, result)
    rounds = result["by_round"]
    lost,other = (sum(r[k] for r in rounds) for k in ("lost", "other_answer"))
    print(f"{a.rounds*a.requests:,} requests, {a.requests} at once: {lost} lost, {other} exchanged; MB of server and"
        f" workers {rounds[0]['memory']} after the first round, {rounds[-1]['memory']} after the last; exit code"
        f" {result['exit_code']}, left {result['left']}; {time.time()-start:.0f} s; {a.out}")


if __name__ == "__main__": sys.exit(main())
