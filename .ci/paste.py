"""The code of tutorials and how-to pages as a reader pastes it: the visible cells, in order, into a fresh interpreter.

    python .ci/paste.py [PAGE …] [--limit SECONDS]         PAGE: tutorials/01_quickstart, or a folder

Each page runs in an interpreter and a folder of its own. Left out are hidden cells, cells that need time, a GPU or a
network (`slow`, `gpu`, `net`), and lines for a shell. By hand: all pages take about 20 minutes on two cores. The test
suite runs the same cells, the hidden ones as well; `site.py --kind 5` finds names without import without running them.
"""
import argparse
import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SITE = runpy.run_path(str(ROOT/".ci"/"site.py"))
FOLDERS = ("tutorials", "howto")

# Runs the cells of a JSON list on stdin; without a file of its own, as an interactive interpreter
RUN = """
import json, sys, traceback
for _k,(_name,_text) in enumerate(json.load(open(sys.argv[1]))):
    try: exec(compile(_text, _name, "exec"), globals())
    except BaseException as e:
        print(f"\\ncell {_name}: {type(e).__name__}: {e}", file=sys.stderr)
        sys.exit(1)
"""

def pasted(cell):
    "Code of a cell that a reader copies; empty for a cell that is left out"
    source = SITE["source"](cell)
    if cell["cell_type"] != "code" or SITE["hidden"](cell) or SITE["has"](source, "slow", "gpu", "net", r"eval:\s*false"): return ""
    text = SITE["body"](source)
    if text.startswith("%%writefile"):
        head,_,body = text.partition("\n")
        return f"from pathlib import Path\nPath({head.split(maxsplit=1)[1]!r}).write_text({body + chr(10)!r})"
    if text.startswith(("%%", "!")): return ""
    return "\n".join(l for l in text.splitlines() if not l.lstrip().startswith(("!", "%")))

def run(page, cells, limit):
    "Seconds, number of cells and the error (empty: none) of a page"
    texts = [(c.get("id", str(i)), t) for i,c in enumerate(cells) if (t := pasted(c)).strip()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)/"cells.json"
        path.write_text(json.dumps(texts), encoding="utf-8")
        (Path(folder)/"work").mkdir()
        env = os.environ | {"PYTHONPATH": str(ROOT), "POPNB_PROGRESS": "0"}
        start = time.monotonic()
        try: done = subprocess.run([sys.executable, "-c", RUN, str(path)], cwd=Path(folder)/"work", env=env, capture_output=True,
                                   text=True, timeout=limit)
        except subprocess.TimeoutExpired: return limit, len(texts), f"not done after {limit:g} s"
        said = done.stderr.strip().splitlines()
        return time.monotonic()-start, len(texts), "" if done.returncode == 0 else next((l for l in said if l.startswith("cell ")), said[-1] if said else "failed")

def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("pages", nargs="*", default=FOLDERS)
    p.add_argument("--limit", type=float, default=600, help="seconds of a page")
    o = p.parse_args()
    chosen = {k: v for k,v in SITE["load"](ROOT).items() if k.startswith(tuple(o.pages))}
    failed = 0
    for page,cells in chosen.items():
        seconds,n,error = run(page, cells, o.limit)
        failed += bool(error)
        print(f"{seconds:6.1f} s  {n:3} cells  {page}{': ' + error if error else ''}", flush=True)
    print(f"{len(chosen)-failed} passed, {failed} failed")
    return 1 if failed or not chosen else 0

if __name__ == "__main__": sys.exit(main())
