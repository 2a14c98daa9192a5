"""Use the web page in a real browser: upload, wrong file, two users, versions, table, refresh, keyboard, phone, dark mode, axe-core.

    python .ci/app_browser.py                    every step; one line each, exit 1 if one fails
    python .ci/app_browser.py --shots DIR        with a screenshot of each step
    python .ci/app_browser.py --tutorial         also draw the pictures of the tutorial (nbs/images/app)

Needs gradio, playwright (pip install playwright) and chromium (apt install chromium); without one of them it says so and exits
with 0. axe-core is taken from --axe FILE or with npm; without both that part is left out, with a word. Clips are simulated;
everything stays on the loopback interface, in a temporary folder.
"""
import argparse
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WINDOW,PHONE = dict(width=1100, height=900),dict(width=390, height=844)
TITLE = "Surprising concert at home"
SECONDS = 90_000                                                  # for one answer, milliseconds
PICTURE_BYTES = 150_000                                           # of a picture of the tutorial, at most
SERIOUS = "axe.run(document, {resultTypes: ['violations']}).then(r => r.violations.filter(v => ['serious', 'critical']" \
    ".includes(v.impact)).map(v => `${v.id}: ${v.nodes[0].html.slice(0, 160)}`))"
WIDE = "document.documentElement.scrollWidth - innerWidth"

def skip(why):
    print(f"skipped: {why}")
    sys.exit(0)

def make_run(folder):
    "Simulate clips and train a small run; returns the row of one clip"
    sys.path.insert(0, str(ROOT))
    from popnb.runs.train import train
    from popnb.simulation.dataset import SMALL, simulate
    data = simulate(96, folder/"sample", seed=3, **SMALL, workers=1)
    options = dict(split_options={"sizes": (.5, .3, .2)}, encoders=None, store=folder/"store")
    train("tabular", folder/"sample"/"table.parquet", folder/"first", **options)
    t = data.table
    whole = t["title"].notna() & t["thumbnail_path"].notna() & ~t["video_id"].isin(sum(data.broken.values(), []))
    return t[whole].iloc[0]

@contextmanager
def serving(folder):
    "Start `popnb app` as a user does; yields its address"
    call = [sys.executable, "-m", "popnb.cli.main", "app", str(folder/"first"), "--port", "0", "--json", "--no-open",
        "--refits", "3", "--workers", "1", "--store", str(folder/"store")]
    env = os.environ | {"PYTHONPATH": os.environ.get("POPNB_BROWSER_PATH", str(ROOT)), "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(call, env=env, stdout=subprocess.PIPE, text=True, cwd=folder)
    try:
        line = server.stdout.readline()
        if not line: raise SystemExit("popnb app ended before it served a page")
        yield json.loads(line)["address"]
    finally:
        server.terminate()
        server.wait(30)

def axe_script(given, folder):
    "Source of axe-core, or `None`"
    if given: return given.read_text(encoding="utf-8")
    if not shutil.which("npm"): return None
    try: subprocess.run(["npm", "pack", "axe-core", "--silent"], cwd=folder, check=True, timeout=60, capture_output=True)
    except (subprocess.SubprocessError, OSError): return None
    import tarfile
    with tarfile.open(next(folder.glob("axe-core-*.tgz"))) as t: return t.extractfile("package/axe.min.js").read().decode()

class Walk:
    "Steps in the browser, and what was wrong"
    def __init__(self, chrome, address, row, folder, axe, shots):
        self.chrome,self.address,self.row,self.folder,self.axe,self.shots = chrome,address,row,folder,axe,shots
        self.hosts,self.errors,self.wrong = set(),[],[]

    @contextmanager
    def page(self, **options):
        "A browser of its own, with the page open"
        context = self.chrome.new_context(**{"viewport": WINDOW, "color_scheme": "light"} | options)
        tab = context.new_page()
        tab.on("request", lambda r: self.hosts.add(r.url.split("/")[2]) if r.url.startswith(("http", "ws")) else None)
        tab.on("console", lambda m: self.errors.append(m.text[:200]) if m.type == "error" else None)
        tab.goto(self.address)
        tab.get_by_role("button", name="Estimate").wait_for(timeout=SECONDS)
        tab.wait_for_timeout(300)
        try: yield tab
        finally: context.close()

    def check(self, name, fact, said=""):
        if not fact: self.wrong.append(f"{name}: {said or 'no'}")

    def look(self, tab, name):
        "Screenshot, and findings of axe-core"
        tab.wait_for_timeout(400)
        if self.shots: tab.screenshot(path=self.shots/f"{name}.png", full_page=True)
        if self.axe:
            tab.evaluate(self.axe)
            for found in tab.evaluate(SERIOUS): self.wrong.append(f"{name}: axe-core {found}")

def estimate(tab, clip=None, title=None, thumbnail=None, explained=True):
    "Fill in the form and wait for the answer; returns its text"
    if clip:
        tab.locator("#pn-clip input[type=file]").set_input_files(clip)
        tab.locator("#pn-clip video").wait_for(timeout=SECONDS)
    if title is not None: tab.get_by_label("Title", exact=True).fill(title)
    if thumbnail:
        tab.get_by_text("More about the video").click()
        tab.get_by_label("Thumbnail").locator("visible=true").first.wait_for()
        tab.locator("input[type=file][accept*='image']").first.set_input_files(thumbnail)
        tab.wait_for_timeout(1500)
    tab.get_by_role("button", name="Estimate").click()
    tab.locator(".pn-big, .pn-error").first.wait_for(timeout=SECONDS)
    if explained: tab.get_by_text("Why this answer").wait_for(timeout=SECONDS)
    return tab.locator(".pn-card").first.inner_text()

def step_start(w):
    with w.page() as tab: w.look(tab, "start")

def step_title_only(w):
    with w.page() as tab:
        text = estimate(tab, title=f"{TITLE} <img src=x onerror='window.broken=1'>")
        w.check("title only", "about" in text and "in 10 times" in text, text)
        w.check("title only", "the clip" in text, "it does not say that the clip is missing")
        w.check("title only", "About" in tab.locator("[role=status]").first.inner_text(), "nothing is read aloud")
        w.check("title only", tab.evaluate("window.broken") is None, "a script of the title ran")
        w.look(tab, "title_only")

def step_clip(w):
    with w.page() as tab:
        estimate(tab, w.row.video_path, w.row.title, w.row.thumbnail_path)
        w.check("clip", tab.locator("[data-seek]").count() == 8, "no time line")
        w.check("clip", tab.locator(".pn-tiles i").count() > 3, "no regions")
        tab.locator("[data-seek]").nth(4).click()
        tab.wait_for_timeout(300)
        at = tab.evaluate("document.querySelector('#pn-clip video').currentTime")
        w.check("clip", at > .5, f"a press on a moment moved the player to {at}")
        w.look(tab, "clip")

def step_wrong_file(w):
    with w.page() as tab:
        bad = w.folder/"holiday.mp4"
        bad.write_text("<html><script>alert(1)</script></html>")
        tab.locator("#pn-clip input[type=file]").set_input_files(bad)
        tab.wait_for_timeout(1500)
        tab.get_by_role("button", name="Estimate").click()
        box = tab.get_by_role("alert").locator("visible=true").first
        box.wait_for(timeout=SECONDS)
        text = box.inner_text()
        w.check("wrong file", "refused" in text and "/" not in text.replace("w/o", ""), text)
        w.look(tab, "wrong_file")
    with w.page() as tab:
        bad = bad.rename(bad.with_suffix(".png"))
        tab.get_by_text("More about the video").click()
        tab.locator("input[type=file][accept*='image']").first.set_input_files(bad)
        tab.wait_for_timeout(1500)
        tab.get_by_role("button", name="Estimate").click()
        tab.locator(".pn-error:visible").wait_for(timeout=SECONDS)
        w.check("wrong picture", "refused" in tab.locator(".pn-error").inner_text(), tab.locator(".pn-error").inner_text())

def step_two_users(w):
    with w.page() as one, w.page() as two:
        for tab,title in ((one, "Red fox"), (two, "Blue whale song")):
            tab.get_by_label("Title", exact=True).fill(title)
        for tab in (one, two): tab.get_by_role("button", name="Estimate").click()
        for tab,words in ((one, 2), (two, 3)):
            tab.get_by_text("Why this answer").wait_for(timeout=SECONDS)
            found = tab.locator(".pn-words li").count()
            w.check("two users", found == words, f"{found} words in place of {words}")

def step_versions(w):
    with w.page() as tab:
        tab.get_by_role("tab", name="Which of these?").click()
        tab.get_by_label("Titles, one a line").fill(f"{TITLE}\nMy cat meets snow")
        tab.get_by_role("button", name="Which is best?").click()
        tab.get_by_text("Against the top one").wait_for(timeout=SECONDS)
        answer = tab.locator(".pn-big:visible").inner_text()
        w.check("versions", answer == "Cannot tell" or TITLE in answer or "cat" in answer, answer)
        w.look(tab, "versions")
        tab.get_by_label("Titles, one a line").fill("only one")
        tab.get_by_role("button", name="Which is best?").click()
        tab.locator(".pn-error:visible").wait_for(timeout=SECONDS)

def step_table(w):
    with w.page() as tab:
        tab.get_by_role("tab", name="Many videos").click()
        mine = w.folder/"mine.csv"
        mine.write_text("title,followers\n=1+1 cats,100\nMy dog,many\nMy bird,300\n")
        tab.locator("input[type=file][accept*='csv']").locator("visible=true").or_(
            tab.locator("input[type=file][accept*='csv']")).first.set_input_files(mine)
        tab.wait_for_timeout(1000)
        tab.get_by_role("button", name="Score all rows").click()
        button = tab.get_by_role("button", name="Download the scored table").or_(
            tab.get_by_role("link", name="Download the scored table")).first
        button.wait_for(timeout=SECONDS)
        with tab.expect_download(timeout=SECONDS) as got: button.click()
        rows = Path(got.value.path()).read_text(encoding="utf-8").splitlines()
        w.check("table", len(rows) == 4 and "error" in rows[0], rows)
        w.check("table", not rows[1].startswith("="), "a formula is left in the table")
        w.look(tab, "table")

def step_compare(w):
    with w.page() as tab:
        tab.get_by_role("tab", name="Compare").click()
        tab.get_by_text("Which model predicts better?").wait_for(timeout=SECONDS)
        w.look(tab, "compare")

def step_refresh(w):
    with w.page() as tab:
        tab.locator("#pn-clip input[type=file]").set_input_files(w.row.video_path)
        tab.get_by_label("Title", exact=True).fill(TITLE)
        tab.get_by_role("button", name="Estimate").click()
        tab.wait_for_timeout(200)
        before = len(w.errors)
        tab.reload()
        tab.get_by_role("button", name="Estimate").wait_for(timeout=SECONDS)
        tab.wait_for_timeout(500)
        del w.errors[before:]                                      # of the answer that was given up
        w.check("refresh", "about" in estimate(tab, title=TITLE), "no answer after the page was loaded again")

def step_keyboard(w):
    with w.page() as tab:
        for _ in range(20):
            tab.keyboard.press("Tab")
            if tab.evaluate("document.activeElement.matches('textarea, input[type=text]') && "
                "(document.activeElement.closest('label') || {}).innerText?.trim() == 'Title'"): break
        else: return w.check("keyboard", False, "the title cannot be reached by Tab")
        tab.keyboard.type(TITLE)
        tab.keyboard.press("Tab")
        tab.keyboard.press("Enter")                                # opens more fields
        tab.wait_for_timeout(300)
        for _ in range(30):
            if tab.evaluate("document.activeElement.innerText == 'Estimate'"): break
            tab.keyboard.press("Tab")
        else: return w.check("keyboard", False, "Estimate cannot be reached by Tab")
        ring = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        w.check("keyboard", ring not in ("none", ""), "the focus is not seen")
        tab.keyboard.press("Enter")
        tab.locator(".pn-big").wait_for(timeout=SECONDS)
        tab.get_by_role("tab", name="Score").focus()
        tab.keyboard.press("Tab")
        tab.keyboard.press("Enter")
        w.look(tab, "keyboard")

def step_dark(w):
    with w.page(color_scheme="dark") as tab:
        estimate(tab, w.row.video_path, w.row.title)
        colour = tab.evaluate("getComputedStyle(document.body).backgroundColor").strip("rgba()").split(",")[:3]
        w.check("dark", max(map(int, colour)) < 80, f"background {colour}")
        w.look(tab, "dark")

def step_phone(w):
    with w.page(viewport=PHONE, has_touch=True, is_mobile=True) as tab:
        estimate(tab, w.row.video_path, w.row.title)
        w.look(tab, "phone")
        for name in ("Score", "Which of these?", "Many videos", "Compare"):
            tab.get_by_role("tab", name=name).tap()
            tab.wait_for_timeout(500)
            w.check("phone", tab.evaluate(WIDE) <= 0, f"{name} scrolls sideways by {tab.evaluate(WIDE)} pixels")

STEPS = dict(start=step_start, title_only=step_title_only, clip=step_clip, wrong_file=step_wrong_file, two_users=step_two_users,
    versions=step_versions, table=step_table, compare=step_compare, refresh=step_refresh, keyboard=step_keyboard, dark=step_dark,
    phone=step_phone)

def small_png(data):
    "PNG with fewer colours, below `PICTURE_BYTES`"
    from PIL import Image
    image,colours = Image.open(io.BytesIO(data)).convert("RGB"),128
    while True:
        out = io.BytesIO()
        image.quantize(colours, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
        if out.tell() < PICTURE_BYTES or colours <= 16: return out.getvalue()
        colours //= 2

def tutorial(w, folder):
    "Draw the pictures of the tutorial"
    folder.mkdir(parents=True, exist_ok=True)
    def save(name, where): (folder/f"{name}.png").write_bytes(small_png(where.screenshot()))
    with w.page(viewport=dict(width=900, height=560)) as tab: save("start", tab)
    with w.page(viewport=dict(width=1240, height=900)) as tab:
        estimate(tab, w.row.video_path, TITLE)
        tab.wait_for_timeout(500)
        save("score", tab.locator(".pn-card[aria-label=Result]"))
        save("why", tab.locator(".pn-card[aria-label='Why this answer']"))
        tab.get_by_role("tab", name="Which of these?").click()
        tab.get_by_label("Titles, one a line").fill(f"{TITLE}\nMy cat meets snow")
        tab.get_by_role("button", name="Which is best?").click()
        tab.get_by_text("Against the top one").wait_for(timeout=SECONDS)
        tab.wait_for_timeout(500)
        save("versions", tab.locator(".pn-card[aria-label=Answer]"))

def run_step(w, name):
    "Run one step and print a line"
    from playwright.sync_api import Error
    before,begin = len(w.wrong),time.monotonic()
    try: STEPS[name](w)
    except Error as e: w.wrong.append(f"{name}: {str(e).splitlines()[0]}")
    new = w.wrong[before:]
    print(f"{'FAILED' if new else 'ok':7}{name} ({time.monotonic()-begin:.0f} s)", *(f"  {o}" for o in new), sep="\n" if new else "",
        flush=True)

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("steps", nargs="*", default=list(STEPS), help=", ".join(STEPS))
    ap.add_argument("--shots", type=Path, help="folder for screenshots")
    ap.add_argument("--axe", type=Path, help="axe.min.js of axe-core")
    ap.add_argument("--tutorial", action="store_true", help="draw the pictures of the tutorial")
    args = ap.parse_args()
    for package in ("gradio", "playwright"):
        if importlib.util.find_spec(package) is None: skip(f"{package} is not installed")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None) or skip("no chromium on this machine")
    from playwright.sync_api import sync_playwright
    if args.shots: args.shots.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        row,axe = make_run(folder),axe_script(args.axe, folder)
        if axe is None: print("axe-core is not at hand (--axe FILE, or npm): that part is left out", flush=True)
        with serving(folder) as address, sync_playwright() as p:
            chrome = p.chromium.launch(executable_path=browser, args=["--no-sandbox"])
            w = Walk(chrome, address, row, folder, axe, args.shots)
            for name in args.steps: run_step(w, name)
            w.check("hosts", w.hosts == {address.split("/")[2]}, f"requests to {w.hosts}")
            w.check("console", not w.errors, w.errors[:3])
            if args.tutorial: tutorial(w, ROOT/"nbs"/"images"/"app")
            chrome.close()
    for o in w.wrong: print(f"wrong: {o}")
    print(f"{len(args.steps)} steps, {len(w.wrong)} wrong, requests to {', '.join(sorted(w.hosts))} alone"
        f"{'' if axe else ', without axe-core'}")
    sys.exit(bool(w.wrong))

if __name__ == "__main__": main()
