"""The order of the packages: one list for the sidebar of the site and for the layout check.

    python .ci/layers.py            write nbs/sidebar.yml
    python .ci/layers.py --check    exit 1 where it is out of date
"""
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
    "cli": "Command line",
}

# Folders of prose, in the order in which a reader meets them
PROSE = {"tutorials": "Tutorials", "howto": "How-to guides", "explanations": "Background"}
FIRST = {"tutorials": ["01_quickstart", "02_youtube_shorts", "04_watch_the_video", "05_vision_language", "06_engagement_with_sound", "03_thirty_days"]}

def pages_of(folder):
    "Pages of a folder of nbs/ in order, as paths relative to nbs/"
    names = sorted((NBS/folder).glob("*.ipynb"), key=lambda p: p.name)
    first = FIRST.get(folder, [])
    names.sort(key=lambda p: first.index(p.stem) if p.stem in first else len(first))
    return [p.relative_to(NBS).as_posix() for p in names]

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
    for folder,heading in PROSE.items(): section(heading, pages_of(folder), 6)
    out.extend(["      - section: Reference", "        contents:"])
    for heading,pages in sections().items(): section(heading, pages, 10)
    section("Project", ["99_layout.ipynb"], 10)
    return "\n".join(out) + "\n"

if __name__ == "__main__":
    target = NBS/"sidebar.yml"
    if "--check" in sys.argv: sys.exit(0 if target.read_text(encoding="utf-8") == render() else "nbs/sidebar.yml is out of date; run: python .ci/layers.py")
    target.write_text(render(), encoding="utf-8")
