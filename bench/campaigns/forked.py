"""A function in a process that may die, for campaigns that import heavy libraries once and fork for every case"""
import json
import os
import select
import signal
import time
import traceback
import warnings


def in_child(work, seconds=None):
    "`(result, '')` of a function in a process of its own, or `(None, what happened)`"
    read,write = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(read)
        warnings.simplefilter("ignore")
        with open(write, "w", encoding="utf-8") as f:
            try: f.write(json.dumps(work()))
            except BaseException: f.write(json.dumps({"kind": "traceback", "text": traceback.format_exc()[-1500:]}))
        os._exit(0)
    os.close(write)
    end,said,part = time.monotonic()+(seconds or 3600),b"",b"-"
    while part and select.select([read], [], [], max(end-time.monotonic(), 0))[0]: said += (part := os.read(read, 1 << 16))
    if part: os.kill(pid, signal.SIGKILL)
    os.close(read)
    status = os.waitpid(pid, 0)[1]
    if part: return None, "no end"
    if os.WIFSIGNALED(status): return None, f"signal {signal.Signals(os.WTERMSIG(status)).name}"
    return (json.loads(said), "") if said else (None, "no answer")
