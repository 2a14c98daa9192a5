"""Are gs:// and hf:// objects read whole, and are missing and denied ones named?

    python bench/object_schemes.py [--out bench/results/object_schemes.json]

A small HTTP server on this machine gives the answers of Google Cloud Storage and of the Hugging Face hub that their libraries
ask for, as far as one bucket and one data set need them (`STORAGE_EMULATOR_HOST`, `HF_ENDPOINT`). Written is what becomes of
an object of 1.3 MB, of a missing and of a denied one, and how many requests it took. S3 has a full server:
`bench/object_storage.py`.
"""
import argparse
import contextlib
import json
import logging
import os
import re
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

BODY = bytes(range(256))*5000
ADDRESSES = [("gs://clips/a.mp4", "whole"), ("gs://clips/none.mp4", "missing"), ("hf://datasets/me/clips/a.mp4", "whole"),
    ("hf://datasets/me/clips/none.mp4", "missing"), ("hf://datasets/me/clips/closed.mp4", "denied"),
    ("hf://datasets/me/none/a.mp4", "missing")]
COUNT = [0]


def tree():
    "Files of the data set, as the hub lists them"
    return [dict(type="file", path=name, size=len(BODY), oid=str(i)*40) for i,name in enumerate(("a.mp4", "closed.mp4"), 1)]


class Answers(BaseHTTPRequestHandler):
    "One bucket `clips` of Google Cloud Storage, and one data set `me/clips` of the hub"
    protocol_version = "HTTP/1.1"
    def log_message(self, *args): pass
    def do_HEAD(self): self.do_GET()

    def answer(self, code, body, **headers):
        self.send_response(code)
        for k,v in headers.items(): self.send_header(k.replace("_", "-"), v)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):          # a client that has what it wants
            if self.command == "GET": self.wfile.write(body)

    def json(self, code, value): self.answer(code, json.dumps(value).encode(), Content_Type="application/json")

    def content(self):
        first,last = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "bytes=0-").groups()
        last = int(last or len(BODY)-1)
        self.answer(206, BODY[int(first):last+1], Content_Range=f"bytes {first}-{last}/{len(BODY)}", ETag='"x"')

    def do_GET(self):
        COUNT[0] += 1
        url = urlparse(self.path)
        path = unquote(url.path)
        if key := re.match(r".*/storage/v1/b/clips/o/(.+)$", path):
            if key[1] != "a.mp4": return self.json(404, {"error": {"code": 404, "message": "No such object"}})
            if "alt=media" in url.query: return self.content()
            when = "2026-01-01T00:00:00Z"
            return self.json(200, dict(name=key[1], bucket="clips", size=str(len(BODY)), etag="x", timeCreated=when, updated=when))
        if path.endswith("/storage/v1/b/clips/o"): return self.json(200, {"items": []})
        if path.startswith("/api/datasets/me/clips/tree"): return self.json(200, tree())
        if path == "/api/datasets/me/clips": return self.json(200, dict(id="me/clips", sha="2"*40, siblings=[], tags=[]))
        if path.endswith("resolve/main/a.mp4"): return self.content()
        self.answer(403 if path.endswith("closed.mp4") else 404, b"")


def fate(url, folder):
    "What becomes of an object, and the number of requests"
    from popnb.remote import RemoteError, fetch
    COUNT[0] = 0
    try: found = "whole" if fetch(url, folder).read_bytes() == BODY else "damaged"
    except RemoteError as e: found = e.kind
    return dict(found=found, requests=COUNT[0])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, default=Path(__file__).parent/"results"/"object_schemes.json", help="JSON file")
    a,start = p.parse_args(),time.time()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["STORAGE_EMULATOR_HOST"] = os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
    logging.getLogger("gcsfs").setLevel(logging.ERROR)
    from popnb.core import write_json
    from popnb.remote import remote_files
    with tempfile.TemporaryDirectory() as d: result = {url: fate(url, d) for url,_ in ADDRESSES}
    result["listed"] = remote_files("hf://datasets/me/clips/*.mp4")
    server.shutdown()
    print(result)
    write_json(a.out, result)
    wrong = [url for url,kind in ADDRESSES if result[url]["found"] != kind]
    print(f"{len(ADDRESSES)} objects, {len(wrong)} with another fate than planned; {time.time()-start:.0f} s; {a.out}")
    return int(bool(wrong))


if __name__ == "__main__": sys.exit(main())
