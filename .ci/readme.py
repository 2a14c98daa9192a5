"README.md from nbs/index.ipynb: prose as it is, code fenced, text outputs indented. Needs no Quarto."
import json
import sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent
source,target = root/"nbs"/"index.ipynb",root/"README.md"

def _output(o):
    data = o.get("data", {})
    for kind in ("text/markdown", "text/plain"):
        if kind in data:
            text = "".join(data[kind])
            return text if kind == "text/markdown" else "\n".join("    " + l for l in text.splitlines())
    return "\n".join("    " + l for l in "".join(o.get("text", "")).splitlines())

def _cell(c):
    text = "".join(c["source"])
    if c["cell_type"] == "markdown": return [text.replace("](images/", "](nbs/images/")]
    if c["cell_type"] != "code" or text.startswith("#| hide\n"): return []
    shown = [] if text.startswith("#| hide_input") else [f"```python\n{text}\n```"]
    return [*shown, *[t for o in c["outputs"] if (t := _output(o)).strip()]]

def render() -> str:
    "What README.md must say"
    cells = json.loads(source.read_text(encoding="utf-8"))["cells"]
    head = "<!-- Made from nbs/index.ipynb by .ci/readme.py; edit the notebook. -->\n\n"
    return head + "\n\n".join(t for c in cells for t in _cell(c)) + "\n"

if __name__ == "__main__":
    if "--check" in sys.argv: sys.exit(0 if target.read_text(encoding="utf-8") == render() else "README.md differs from nbs/index.ipynb; run: python .ci/readme.py")
    target.write_text(render(), encoding="utf-8")
