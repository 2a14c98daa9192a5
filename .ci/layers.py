"""The order of the packages: one list for the sidebar of the site, its indexes and the layout check.

    python .ci/layers.py            write nbs/sidebar.yml, nbs/llms.txt and popnb/_pages.py
    python .ci/layers.py --check    exit 1 where one is out of date
"""
import json
import re
import sys
from pathlib import Path

NBS = Path(__file__).resolve().parent.parent/"nbs"

# Folder of nbs/ (or page at its top) -> heading in the sidebar. A page imports only from what stands before it.
LAYERS = {
    "docstrings": "Core",
    "progress": "Core",
    "documentation": "Core",
    "core": "Core",
    "remote": "Core",
    "workers": "Core",
    "registry": "Core",
    "data": "Tables, labels, splits",
    "losses": "Losses",
    "metrics": "Metrics",
    "plots": "Plots",
    "simulation": "Simulated data",
    "media": "Video, audio, images",
    "environment": "Core",
    "features": "Features",
    "audit": "Audit of tables",
    "youtube": "YouTube",
    "training": "Training",
    "models": "Models",
    "models/tabular": "System: tabular",
    "models/clip_lgbm": "System: CLIP and LightGBM",
    "models/smtpd": "System: SMTPD",
    "models/video": "Systems: video networks",
    "models/vlm": "Systems: vision-language models",
    "models/videollama2": "System: VideoLLaMA2",
    "models/ensemble": "System: ensemble",
    "evaluation": "Evaluation",
    "explain": "Explanations of predictions",
    "runs": "Runs",
    "app": "Web page and its API",
    "cli": "Command line",
}

# Folders of prose, in the order in which a reader meets them
PROSE = {"tutorials": "Tutorials", "howto": "How-to guides", "explanations": "Background", "reference": "Reference", "project": "Project"}
SITE = "https://popnb.github.io/popnb"
FIRST = {
    "tutorials": ["01_quickstart", "07_your_own_csv", "02_youtube_shorts", "03_thirty_days", "04_watch_the_video", "09_tiktok_virality",
        "05_vision_language", "06_engagement_with_sound", "10_ensemble_and_submission", "08_for_creators"],
    "howto": ["install", "import_each_source", "audit_a_table", "choose_a_label", "choose_a_split", "train_on_a_gpu", "presets", "local_weights", "resume",
        "score_many_videos", "run_on_a_cluster", "serve_answers", "explain_a_score", "compare_runs", "published_tables", "published_commands"],
    "explanations": ["five_systems", "splits_leaks_ceilings", "what_popular_means", "what_explanations_tell", "intervals", "ten_million_clips"],
    "reference": ["overview", "command_line", "columns", "labels", "splits", "metrics", "run_folder", "glossary"],
    "project": ["contributing", "changelog"]}
LAST = {"project": ["99_layout.ipynb"]}      # pages at the top of nbs/ that end a section

def pages_of(folder):
    "Pages of a folder of nbs/ in order, as paths relative to nbs/"
    names = sorted((NBS/folder).glob("*.ipynb"), key=lambda p: p.name)
    first = FIRST.get(folder, [])
    names.sort(key=lambda p: first.index(p.stem) if p.stem in first else len(first))
    return [p.relative_to(NBS).as_posix() for p in names] + LAST.get(folder, [])

def layer_of(page):
    "`(position of the layer, number of the page)` of a page, e.g. data/02_sources.ipynb; `None` for prose"
    folder,_,name = page.rpartition("/")
    number,_,stem = name.removesuffix(".ipynb").partition("_")
    key = folder or stem
    if key not in LAYERS or not number.isdigit(): return None
    return list(LAYERS).index(key),int(number)

def sections():
    "Heading -> pages"
    out = {}
    for layer,heading in LAYERS.items():
        single = [p.relative_to(NBS).as_posix() for p in NBS.glob(f"[0-9][0-9]_{layer}.ipynb")]
        out.setdefault(heading, []).extend(single or pages_of(layer))
    return out

def render():
    "Text of sidebar.yml"
    out = ["website:", "  sidebar:", "    contents:", "      - index.ipynb"]
    def section(heading, pages, depth):
        pad = " "*depth
        out.extend([f"{pad}- section: {heading!r}" if ":" in heading else f"{pad}- section: {heading}", f"{pad}  contents:"])
        out.extend(f"{pad}    - {p}" for p in pages)
    *before,(last,project) = PROSE.items()
    for folder,heading in before: section(heading, pages_of(folder), 6)
    out.extend(["      - section: API by package", "        contents:"])
    for heading,pages in sections().items(): section(heading, pages, 10)
    section(project, pages_of(last), 6)
    return "\n".join(out) + "\n"

def heading(page):
    "Title and summary of a page"
    first = "".join(json.loads((NBS/page).read_text(encoding="utf-8"))["cells"][0]["source"])
    title,_,quote = first.partition("\n\n> ")
    return title.removeprefix("# ").strip(),quote.strip()

def address(page):
    "Address of a page on the site: nbdev drops the number before its name"
    folder,_,name = page.rpartition("/")
    return f"{SITE}/{folder}/".rstrip("/") + "/" + re.sub(r"^\d+[a-zA-Z0-9]*_", "", name).replace(".ipynb", ".html")

def groups():
    "Heading -> pages, those of prose first"
    return {**{h: pages_of(f) for f,h in PROSE.items()}, **sections()}

def index():
    "Text of llms.txt: the Markdown twin of every page with its summary"
    title,quote = heading("index.ipynb")
    out = [f"# {title}", "", f"> {quote}", "", f"Each page is there as HTML too: {SITE}/…/name.html beside name.html.md."]
    for name,pages in groups().items():
        lines = [f"- [{t}]({address(p)}.md): {q}" for p in pages for t,q in [heading(p)]]
        if lines: out += ["", f"## {name}", "", *lines]
    return "\n".join(out) + "\n"

def headings(page):
    "Headings of the text of a page, and of the Markdown that its cells display"
    cells = json.loads((NBS/page).read_text(encoding="utf-8"))["cells"]
    texts = ["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"]
    texts += ["".join(o["data"]["text/markdown"]) for c in cells for o in c.get("outputs", []) if "text/markdown" in o.get("data", {})]
    plain = re.sub(r"```.*?```", "", "\n".join(texts), flags=re.S)
    found = (re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", t).strip() for t in re.findall(r"^#{2,3} (.+)$", plain, re.M))
    return tuple(dict.fromkeys(found))

def pages():
    "Text of popnb/_pages.py, which `popnb docs` searches: address -> title, summary and, of prose, headings"
    names = ["index.ipynb", *(p for group in groups().values() for p in group)]
    rows = {address(p).removeprefix(SITE + "/"): (*heading(p), headings(p) if p.partition("/")[0] in (*PROSE, "index.ipynb") else ())
            for p in names}
    lines = [f"    {k!r}: {v!r}," for k,v in rows.items()]
    return '"Pages of the site: address -> title, summary, headings. Written by .ci/layers.py."\n\nPAGES = {\n' + "\n".join(lines) + "\n}\n"

def written():
    "File -> text that it must hold"
    return {NBS/"sidebar.yml": render(), NBS/"llms.txt": index(), NBS.parent/"popnb"/"_pages.py": pages()}

if __name__ == "__main__":
    for path,text in written().items():
        if "--check" not in sys.argv: path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            sys.exit(f"{path.relative_to(NBS.parent)} is out of date; run: python .ci/layers.py")
