"""Run tutorials in JupyterLab in a real browser: every cell runs, no warning is printed, a progress bar is seen.

    python .ci/browser.py                                   tutorials 01 and 02
    python .ci/browser.py nbs/tutorials/01_quickstart.ipynb --shots DIR

Needs playwright (pip install playwright) and chromium (apt install chromium); without one of them it says so and exits with 0.
Everything stays on the loopback interface, in a temporary folder.
"""
import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["nbs/tutorials/01_quickstart.ipynb", "nbs/tutorials/02_youtube_shorts.ipynb"]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SECONDS = 1800                # for one page
WINDOW = dict(width=1280, height=1000)
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},              # every cell stays in the document
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}

# What one page shows: cells that ran, errors, lines on standard error, bars, height of outputs that hold nothing
LOOK = r"""() => {
    const all = (q, of=document) => [...of.querySelectorAll(q)];
    const cells = all('.jp-Notebook .jp-CodeCell'), out = all('.jp-CodeCell .jp-OutputArea-output');
    const stderr = all('.jp-CodeCell [data-mime-type$=".stderr"]').map(o => o.innerText);      // errors too
    const prompt = c => (c.querySelector('.jp-InputArea-prompt') || {}).innerText || '';
    const holds = o => o.innerText.trim() || o.querySelector('img, svg, table, canvas, progress');
    return {
        cells: cells.length, ran: cells.filter(c => /\[\d+\]/.test(prompt(c))).length,
        busy: cells.filter(c => prompt(c).includes('*')).length,
        errors: stderr.filter(t => t.includes('Traceback')).map(t => t.slice(-400)),
        stderr: stderr.map(t => t.slice(0, 400)),
        warnings: out.map(o => (o.innerText.match(/.*\w*Warning\b.*/g) || []).join('\n')).filter(Boolean),
        bars: all('.jp-OutputArea-output progress').length,
        blank: out.filter(o => o.offsetHeight && !holds(o)).reduce((sum, o) => sum + o.offsetHeight, 0),
    }
}"""

def skip(why):
    print(f"skipped: {why}")
    sys.exit(0)

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]

def without_outputs(page, folder):
    "Copy a notebook without its outputs; returns its name"
    nb = json.loads(page.read_text(encoding="utf-8"))
    for c in nb["cells"]:
        if c["cell_type"] == "code": c |= {"outputs": [], "execution_count": None}
    (folder/page.name).write_text(json.dumps(nb), encoding="utf-8")
    return page.name

def start_lab(work, pages):
    "Start JupyterLab on the loopback interface; returns the process and its address"
    for k,v in SETTINGS.items():
        target = work/"settings"/"@jupyterlab"/f"{k}.jupyterlab-settings"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(v), encoding="utf-8")
    (work/"pages").mkdir()
    for p in pages: without_outputs(p, work/"pages")
    env = {k: v for k,v in os.environ.items() if k not in ("POPNB_PROGRESS", "POPNB_STORE", "CI")}
    env |= {"PYTHONPATH": os.environ.get("POPNB_BROWSER_PATH", str(ROOT)), "JUPYTERLAB_SETTINGS_DIR": str(work/"settings"),
        "JUPYTER_CONFIG_DIR": str(work/"config"), "JUPYTERLAB_WORKSPACES_DIR": str(work/"workspaces"),
        "IPYTHONDIR": str(work/"ipython"), "XDG_CACHE_HOME": str(work/"cache")}
    port,log = free_port(),(work/"lab.log").open("w")
    call = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--allow-root",
        "--IdentityProvider.token=", "--ServerApp.password=", f"--ServerApp.root_dir={work/'pages'}"]
    lab = subprocess.Popen(call, env=env, stdout=log, stderr=log, cwd=work)
    url,end = f"http://127.0.0.1:{port}",time.monotonic() + 180
    while time.monotonic() < end and lab.poll() is None:
        try: return lab,url if urllib.request.urlopen(f"{url}/api", timeout=5).status == 200 else None
        except OSError: time.sleep(.5)
    lab.kill()
    skip(f"JupyterLab does not start: {(work/'lab.log').read_text()[-600:]}")

def run_page(tab, url, name, shots):
    "Run all cells of a notebook in the browser; returns what was seen, with the largest number of bars at one time"
    tab.goto(f"{url}/lab/tree/{name}?reset", timeout=180_000)
    tab.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=180_000)
    tab.wait_for_selector("text=/Python 3.*Idle/i", timeout=180_000)
    tab.get_by_role("menuitem", name="Run", exact=True).click()
    tab.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    bars,begin,shot = 0,time.monotonic(),False
    while time.monotonic() - begin < SECONDS:
        seen = tab.evaluate(LOOK)
        bars = max(bars, seen["bars"])
        if bars and shots and not shot:
            tab.locator(".jp-OutputArea-output progress").first.scroll_into_view_if_needed(timeout=5000)
            tab.screenshot(path=shots/f"{Path(name).stem}_bar.png")
            shot = True
        if seen["errors"] or (seen["ran"] and not seen["busy"] and time.monotonic() - begin > 5): break
        time.sleep(.2)
    time.sleep(2)
    seen = tab.evaluate(LOOK) | {"bars": bars, "seconds": round(time.monotonic() - begin)}
    if shots: screenshots(tab, shots, Path(name).stem)
    return seen

def screenshots(tab, shots, stem):
    "Pictures of the whole notebook, one window at a time"
    panel = ".jp-WindowedPanel-outer"
    height = tab.evaluate(f"document.querySelector('{panel}').scrollHeight")
    for i,top in enumerate(range(0, height, 850)):
        tab.evaluate(f"document.querySelector('{panel}').scrollTop = {top}")
        time.sleep(.3)
        tab.screenshot(path=shots/f"{stem}_{i:02}.png")

def faults(seen):
    "What is wrong with a page, as sentences"
    if seen["errors"]: yield f"a cell failed: {seen['errors'][0]}"
    if seen["busy"] or seen["ran"] < seen["cells"]: yield f"{seen['ran']} of {seen['cells']} cells ran"
    if seen["stderr"]: yield f"{len(seen['stderr'])} outputs on standard error, the first: {seen['stderr'][0]}"
    if seen["warnings"]: yield f"{len(seen['warnings'])} outputs with a warning, the first: {seen['warnings'][0]}"
    if seen["blank"]: yield f"outputs without content take {seen['blank']} pixels"
    if not seen["bars"]: yield "no progress bar was seen"

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("pages", nargs="*", type=Path, default=[ROOT/p for p in PAGES])
    ap.add_argument("--shots", type=Path, help="folder for screenshots")
    args = ap.parse_args()
    try: from playwright.sync_api import sync_playwright
    except ImportError: skip("playwright is not installed")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None) or skip("no chromium on this machine")
    if args.shots: args.shots.mkdir(parents=True, exist_ok=True)
    failed = 0
    with tempfile.TemporaryDirectory() as work, sync_playwright() as p:
        lab,url = start_lab(Path(work), [o.resolve() for o in args.pages])
        try:
            chrome = p.chromium.launch(executable_path=browser, args=["--no-sandbox"])
            for page in args.pages:
                tab = chrome.new_page(viewport=WINDOW)
                seen = run_page(tab, url, page.name, args.shots)
                tab.close()
                wrong = list(faults(seen))
                failed += bool(wrong)
                print(f"{page.name}: {seen['ran']} of {seen['cells']} cells in {seen['seconds']} s, {len(seen['stderr'])} outputs on"
                    f" standard error, {len(seen['warnings'])} with a warning, at most {seen['bars']} bars at a time", flush=True)
                for o in wrong: print(f"  {o}", flush=True)
            chrome.close()
        finally:
            lab.terminate()
            lab.wait(30)
    sys.exit(bool(failed))

if __name__ == "__main__": main()
