"""Thumbnails of the figures of all pages, each linked to the page that draws it: nbs/images/gallery/ and nbs/reference/gallery.ipynb.

    python .ci/gallery.py

One thumbnail a page: that of its first figure. Needs Pillow.
"""
import base64
import io
import json
import re
import runpy
from pathlib import Path

from PIL import Image

root = Path(__file__).resolve().parent.parent
site = runpy.run_path(str(root/".ci"/"site.py"))
layers = runpy.run_path(str(root/".ci"/"layers.py"))
WIDTH = 240

def first_figure(cells):
    "Bytes of the first figure of a page and its alternative text; `None` for a page without"
    for c in site["figures_of"](cells):
        if site["has"](site["source"](c), "hide"): continue
        data = next(o["data"]["image/png"] for o in c["outputs"] if "image/png" in o.get("data", {}))
        alt = next((d.partition(":")[2].strip().strip("'\"").replace("''", "'") for d in site["directives"](site["source"](c))
                    if d.startswith("#| fig-alt")), "")
        return base64.b64decode("".join(data)), alt
    return None

def thumbnail(data):
    "A figure as a small WebP image on white"
    image = Image.open(io.BytesIO(data)).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    image = Image.alpha_composite(white, image).convert("RGB")
    image.thumbnail((WIDTH, WIDTH))
    out = io.BytesIO()
    image.save(out, "WEBP", quality=55, method=6)
    return out.getvalue()

def main():
    folder = root/"nbs"/"images"/"gallery"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.webp"): old.unlink()
    pages,groups = site["load"](root),{**{h: layers["pages_of"](f) for f,h in layers["PROSE"].items()}, **layers["sections"]()}
    parts,n = [],0
    for heading,names in groups.items():
        items = []
        for p in names:
            found = first_figure(pages[p]) if p in pages and p != "reference/gallery.ipynb" else None
            if not found: continue
            name = re.sub(r"[^\w]+", "_", p.removesuffix(".ipynb")) + ".webp"
            (folder/name).write_bytes(thumbnail(found[0]))
            title = layers["heading"](p)[0]
            alt = (found[1] or f"First figure of the page {title}").replace("[", "(").replace("]", ")")
            items.append(f"[![{alt}](../images/gallery/{name})](../{p})\n[{title}](../{p})")
            n += 1
        if items: parts.append(f"## {heading}\n\n" + "\n\n".join(items))
    cells = [f"# Gallery\n\n> Figures that popnb draws, each linked to the page that makes it", *parts]
    book = {"cells": [{"cell_type": "markdown", "id": f"gallery{i:02}", "metadata": {}, "source": t.splitlines(True)}
                      for i,t in enumerate(cells)],
        "metadata": {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}, "nbformat": 4, "nbformat_minor": 5}
    target = root/"nbs"/"reference"/"gallery.ipynb"
    target.write_text(json.dumps(book, ensure_ascii=False, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{n} figures, {sum(f.stat().st_size for f in folder.iterdir()):,} bytes")

if __name__ == "__main__": main()
