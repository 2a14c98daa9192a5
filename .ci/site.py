"""Faults that a reader of the published site would meet, counted without Quarto.

    python .ci/site.py [ROOT] [--kind N …] [--list]
    python .ci/site.py --plant                          plant faults of each kind in a copy; exit code 1 if one is not found

Eleven kinds. Notebooks are read as files, pages are named as nbdev names them (the number before a name is dropped).
Exit code 1 where a fault is found.
"""
import argparse
import ast
import builtins
import importlib
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

WIDTH = 88                                   # columns of a visible line of code or of a text output
PROSE = ("tutorials", "howto", "explanations")
SITE = "https://popnb.github.io/popnb/"
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")

def load(root):
    "Page -> cells, in order; a page is named relative to nbs/"
    nbs = Path(root)/"nbs"
    names = sorted(p for p in nbs.rglob("*.ipynb") if not any(o.startswith((".", "_")) for o in p.relative_to(nbs).parts))
    return {p.relative_to(nbs).as_posix(): json.loads(p.read_text(encoding="utf-8"))["cells"] for p in names}

def source(cell): return "".join(cell["source"])
def directives(text): return [l.strip() for l in text.splitlines() if l.strip().startswith("#|")]
def body(text): return "\n".join(l for l in text.splitlines() if not l.strip().startswith("#|"))
def has(text, *names): return any(re.match(rf"#\|\s*{n}\b", d) for d in directives(text) for n in names)
def exported(cell): return cell["cell_type"] == "code" and has(source(cell), "export", "exporti", "default_exp")
def hidden(cell): return has(source(cell), "hide", r"echo:\s*false", r"include:\s*false", "hide_input")
def visible(cell): return cell["cell_type"] == "code" and not exported(cell) and not hidden(cell) and body(source(cell)).strip()
def text_of(data): return "".join(data) if isinstance(data, list) else data

def parsed(text):
    "Syntax tree of a cell without magics; `None` if it has none"
    try: return ast.parse("\n".join(l for l in body(text).splitlines() if not l.lstrip().startswith(("%", "!"))))
    except SyntaxError: return None

def output_name(page):
    "Page of the site that a notebook becomes: data/01_table.ipynb is data/table.html"
    folder,_,name = page.rpartition("/")
    stem = re.sub(r"^\d+[a-zA-Z0-9]*_", "", name.removesuffix(".ipynb"))
    return f"{folder}/{stem}.html".lstrip("/")

def lost_text(site):
    "1 Text of a first cell that is no title or quote, and titles that come twice"
    titles = {}
    for page,cells in site["pages"].items():
        first = source(cells[0]).strip()
        m = re.fullmatch(r"# (.+)\n\n> ([^\n]+)", first)
        if not m: yield page, f"the first cell holds more than a title and a quote: {first[:60]!r}"
        elif titles.setdefault(m[1], page) != page: yield page, f"has the title of {titles[m[1]]}"

def links_of(cells):
    "Links of the prose of a page, without code"
    for c in cells:
        if c["cell_type"] != "markdown": continue
        prose = re.sub(r"```.*?```|`[^`\n]*`", "", source(c), flags=re.S)
        for image,words,target in LINK.findall(prose): yield bool(image), words, target

def dead_links(site):
    "2 Links and images that lead nowhere, as nbdev names the pages, those of README as well"
    made = {output_name(p) for p in site["pages"]}
    rewritten = "link_pages" in site["settings"]              # the step that turns x/01_y.ipynb into x/y.html
    for page,cells in site["pages"].items():
        for image,_,target in links_of(cells):
            if target.startswith(SITE) and target.removeprefix(SITE).partition("#")[0] not in {"", *made}: yield page, f"{target}: no such page"
            if re.match(r"https?:|mailto:|#", target): continue
            path = os.path.normpath(Path(page).parent/target.partition("#")[0])
            if path.endswith(".ipynb"):
                if path not in site["pages"]: yield page, f"{target}: no such notebook"
                elif not rewritten and output_name(path) != path.replace(".ipynb", ".html"): yield page, f"{target}: the page is {output_name(path)}"
            elif path.endswith(".html"):
                if path not in made: yield page, f"{target}: no such page"
            elif not (site["root"]/"nbs"/path).exists(): yield page, f"{target}: no such file"
    for target in re.findall(r"href: (\S+\.ipynb)", site["quarto"]):
        if target not in site["pages"]: yield "_quarto.yml", f"{target}: no such notebook"
    for _,_,target in LINK.findall(site["readme"]):
        if re.match(r"https?:|mailto:|#", target): continue
        if not (site["root"]/target.partition("#")[0]).exists(): yield "README.md", f"{target}: no such file"

def wide_code(site):
    "3 Visible code and text outputs wider than the column"
    quarto = site["quarto"]
    if "code-overflow: wrap" not in quarto: yield "_quarto.yml", "code-overflow: wrap is not set"
    css = site["css"]
    for rule in ("overflow-x", "overflow-wrap"):
        if rule not in css: yield "nbs/styles.css", f"no rule with {rule} for tables and outputs"
    if "wrap_outputs" not in site["settings"]: yield "settings.ini", "procs lacks popnb.documentation:wrap_outputs, which breaks long lines of output"
    for page,cells in site["pages"].items():
        for c in cells:
            if not visible(c): continue
            wide = [l for l in body(source(c)).splitlines() if len(l) > WIDTH]
            if wide: yield page, f"code of {max(map(len, wide))} columns: {wide[0].strip()[:50]}"

def no_reference(site):
    "4 Commands that the command-line reference does not show"
    page = next((p for p in site["pages"] if output_name(p).endswith("reference/command_line.html")), None)
    shown = "" if page is None else json.dumps(site["pages"][page])
    for cells in site["pages"].values():
        for c in cells:
            if not exported(c): continue
            for name in re.findall(r'^@(?:app|\w+_app)\.command\("([\w-]+)"\)', source(c), re.M):
                if name not in shown: yield "reference/command_line", f"popnb {name} is not there"

def imported_names(tree):
    nodes = [n for n in ast.walk(tree) if isinstance(n, (ast.Import, ast.ImportFrom))]
    stars = {k for n in nodes for a in n.names if a.name == "*" for k in dir(importlib.import_module(n.module))}
    return {(a.asname or a.name).partition(".")[0] for n in nodes for a in n.names} | stars

def defined_names(tree):
    out = set()
    for n in ast.walk(tree):
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store): out.add(n.id)
        elif isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)): out.add(n.name)
        elif isinstance(n, (ast.arg,)): out.add(n.arg)
        elif isinstance(n, ast.ExceptHandler) and n.name: out.add(n.name)
    return out

def not_copyable(site):
    "5 Names of tutorials and how-to pages whose import is hidden, and module pages without their import line"
    for page,cells in site["pages"].items():
        if page.startswith(("tutorials/", "howto/")):
            trees = [t for c in cells if c["cell_type"] == "code" and not hidden(c) and (t := parsed(source(c)))]
            known = set(dir(builtins)) | {"display", "get_ipython"}
            for t in trees: known |= imported_names(t) | defined_names(t)
            for t in trees:
                used = {n.id for n in ast.walk(t) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
                if used-known: yield page, f"{', '.join(sorted(used-known)[:4])}: the import is hidden or missing"
        elif module_of(cells) and not page.startswith("cli/") and not site["shows_imports"]:
            yield page, f"does not show from popnb.{module_of(cells)} import …"

def module_of(cells):
    return next((m[1] for c in cells if (m := re.search(r"#\|\s*default_exp\s+(\S+)", source(c)))), "")

QUESTIONS = {"train on a gpu": r"train on a gpu", "slurm": r"\bslurm\b", "colab": r"\bcolab\b", "own features": r"your own features",
    "glossary": r"# glossary", "cite": r"\bcite\b", "resume": r"\bresum", "which gpu": r"which gpu", "own csv": r"your own csv",
    "troubleshooting": r"troubleshoot"}

ANSWERS = {      # what newcomers type -> the page that answers, at most two clicks from the home page
    "train on a gpu": "howto/train_on_a_gpu.html", "use my own csv": "tutorials/your_own_csv.html",
    "what is srocc": "reference/glossary.html", "which gpu": "explanations/gpus.html", "resume": "howto/resume.html",
    "add a model": "howto/add_a_system.html", "cite": "index.html", "ceiling": "explanations/splits_leaks_ceilings.html",
    "tiktok": "tutorials/tiktok_virality.html", "why is my score low": "howto/troubleshooting.html"}

def links_to(site, page):
    "Pages of the site that a page links to, in its text and in the Markdown that its cells display"
    cells,made = site["pages"][page],{output_name(p): p for p in site["pages"]}
    shown = [text_of(o["data"]["text/markdown"]) for c in cells for o in c.get("outputs", []) if "text/markdown" in o.get("data", {})]
    for target in [t for _,_,t in links_of(cells)] + [t for text in shown for _,_,t in LINK.findall(text)]:
        target = target.partition("#")[0]
        if target.startswith(SITE): yield made.get(target.removeprefix(SITE))
        elif not re.match(r"https?:|mailto:", target): yield os.path.normpath(Path(page).parent/target)

def clicks(site):
    "Page -> fewest clicks from the home page, over links of pages and of the bar at the top"
    top = re.findall(r"href: (\S+\.ipynb)", site["quarto"])
    out,todo = {"index.ipynb": 0},["index.ipynb"]
    while todo:
        page = todo.pop(0)
        for to in [*links_to(site, page), *(top if page == "index.ipynb" else ())]:
            if to in site["pages"] and to not in out:
                out[to] = out[page]+1
                todo.append(to)
    return {output_name(p): n for p,n in out.items()}

def not_found(site):
    "6 Words that newcomers search for and that no heading or paragraph has, and answers more than two clicks from home"
    text = {p: "\n".join(source(c) for c in cells if c["cell_type"] == "markdown").lower() for p,cells in site["pages"].items()}
    for name,pattern in QUESTIONS.items():
        if not any(re.search(pattern, t) for t in text.values()): yield "site", f"nothing about: {name}"
    far = clicks(site)
    for question,page in ANSWERS.items():
        if far.get(page, 99) > 2: yield page, f"answers {question!r} and is more than two clicks from the home page"

def no_tables(site):
    "7 Tables of reference: all columns of the table, all options of each system"
    names = {output_name(p) for p in site["pages"]}
    for page in ("reference/columns.html", "reference/labels.html", "reference/metrics.html", "reference/overview.html"):
        if page not in names: yield page, "is not there"
    shown = "".join(json.dumps(c) for p,c in site["pages"].items() if p.startswith("reference/"))
    for name in site["systems"]:
        if f"Options of {name}" not in shown: yield "reference", f"no table of the options of {name}"

def raw_markdown(site):
    "8 Raw Markdown in signatures, and code words that link to a command of the same name"
    from_settings = "plain_signatures" in site["settings"]
    for page,cells in site["pages"].items():
        if from_settings: return
        for c in cells:
            if not exported(c): continue
            n = sum(l.count("`")//2 for l in source(c).splitlines() if re.search(r"^\s+[\w*]+:[^#]*# .*`", l) or re.match(r"^\).*# .*`", l))
            if n: yield page, f"{n} words in backticks in the table of parameters: {source(c).splitlines()[1][:50]}"

def figures_of(cells):
    for c in cells:
        if c["cell_type"] == "code" and any(k.startswith("image/") for o in c["outputs"] for k in o.get("data", {})): yield c

def broken_options(cell):
    "Options of a cell that a renderer refuses or cuts off: each must be one line of YAML that ends where it is meant to"
    lines = source(cell).splitlines()
    for l,following in zip(lines, [*lines[1:], ""]):
        if not re.match(r"#\|\s*[\w-]+:\s", l): continue
        text = l.partition(":")[2].strip()
        quote = text[:1] if text[:1] in ("'", '"') else ""
        inner = text[1:-1].replace("''", "") if quote == "'" else text[1:-1]
        if quote and (len(text) < 2 or text[-1] != quote or quote in inner): yield f"quotes do not match in {l[:50]!r}"
        elif not quote and ": " in text: yield f"a colon needs quotes in {l[:50]!r}"
        elif "fig-alt" in l and re.match(r"# ?\w", following) and not text.rstrip(quote or " ").endswith("."):
            yield f"goes on after its line: {l[:50]!r}"

def no_alt(site):
    "9 Figures without alternative text, or drawn for a coarse screen; options of cells that are no YAML"
    for page,cells in site["pages"].items():
        for c in cells:
            if c["cell_type"] != "code": continue
            for fault in broken_options(c): yield page, fault
        for c in figures_of(cells):
            if hidden(c) and has(source(c), "hide"): continue
            if any("image/png" in o.get("data", {}) and not o.get("metadata", {}).get("image/png") for o in c["outputs"]):
                yield page, f"a PNG without the size of its layout (popnb.plots.figures.FigureImage): {body(source(c)).strip().splitlines()[-1][:50]}"
            if not has(source(c), "fig-alt"): yield page, f"no fig-alt: {body(source(c)).strip().splitlines()[0][:60]}"
        for image,words,target in links_of(cells):
            if image and not words.strip(): yield page, f"{target}: no alternative text"

TESTY = re.compile(r"mock\.patch|expect_fail|ExceptionExpected")

def tests_first(site):
    "10 Tests that stand where an example should, private functions shown, empty headings"
    for page,cells in site["pages"].items():
        for a,b in zip(cells, [*cells[1:], None]):
            head = a["cell_type"] == "markdown" and re.fullmatch(r"#{2,6} [^\n]+", source(a).strip())
            if head and (b is None or (b["cell_type"] == "markdown" and source(b).lstrip().startswith("#"))):
                yield page, f"nothing under the heading {source(a).strip()!r}"
            if not exported(a) or b is None or not visible(b): continue
            tree = parsed(source(a))
            names = [n.name for n in (tree.body if tree else []) if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
            if not any(not n.startswith("_") for n in names): continue
            if TESTY.search(source(b)): yield page, f"a test of errors stands where an example of {names[0]} should"

def frame(site):
    "11 What the frame of a site has: links, pictures, dark mode, pages before and after"
    q = site["quarto"]
    need = {"repo-url": "link to the repository", "favicon": "favicon", "logo": "logo", "dark:": "dark mode", "page-navigation: true": "previous and next",
        "page-footer": "version and licence at the foot", "open-graph": "social card", "commonmark: default": "Markdown twin of every page"}
    for k,what in need.items():
        if k not in q: yield "_quarto.yml", f"no {what} ({k})"
    pictures = re.findall(r"(?:favicon|logo|image): (\S+\.\w+)", q)
    for f in ("nbs/llms.txt", "CITATION.cff", *(f"nbs/{o}" for o in pictures)):
        if not (site["root"]/f).exists(): yield f, "is not there"
    names = {output_name(p) for p in site["pages"]}
    if not any(n.endswith("gallery.html") for n in names): yield "gallery", "is not there"
    for page,cells in site["pages"].items():
        if page.startswith("tutorials/") and not site["shows_imports"] and not any("colab.research.google.com" in source(c) for c in cells):
            yield page, "no Colab button"

KINDS = (lost_text, dead_links, wide_code, no_reference, not_copyable, not_found, no_tables, raw_markdown, no_alt, tests_first, frame)

def site_of(root):
    "What the checks read"
    root = Path(root).resolve()
    read = lambda p: p.read_text(encoding="utf-8") if p.exists() else ""
    registry = read(root/"popnb"/"registry.py")
    block = re.search(r'SYSTEMS = Registry\("system", \{(.*?)\n\}', registry, re.S)
    systems = re.findall(r'"([\w.-]+)"', re.sub(r'"popnb[\w.]*"', "", block[1])) if block else []
    settings = read(root/"settings.ini")
    return dict(root=root, pages=load(root), readme=read(root/"README.md"), settings=settings, quarto=read(root/"_quarto.yml"), css=read(root/"nbs"/"styles.css"),
        systems=systems, shows_imports="PageHead" in settings)

def faults(root, kinds=range(1, 12)):
    "Kind -> list of (page, fault)"
    site = site_of(root)
    return {k: list(KINDS[k-1](site)) for k in kinds}

def _cells(root, page, *cells):
    "Append cells to a notebook: a text is Markdown, a pair is code with its outputs"
    path = root/"nbs"/page
    book = json.loads(path.read_text(encoding="utf-8"))
    book["cells"] += [{"cell_type": "markdown", "source": c} if isinstance(c, str) else
                      {"cell_type": "code", "source": c[0], "outputs": c[1]} for c in cells]
    path.write_text(json.dumps(book), encoding="utf-8")

def _replace(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{path.name} has no {old!r}"
    path.write_text(text.replace(old, new), encoding="utf-8")

_PICTURE = [{"output_type": "display_data", "data": {"image/png": ""}}]
_HOME,_GUIDE = "index.ipynb","howto/presets.ipynb"

PLANTS = (       # kind, what is planted, how
    (1, "a paragraph in the first cell", lambda d: _replace(d/"nbs"/_GUIDE, '"# ', '"Lost words. # ')),
    (2, "a link to a page that is not there", lambda d: _cells(d, _HOME, "[a](data/99_none.ipynb)")),
    (2, "an address of the site that is not there", lambda d: _cells(d, _HOME, f"[a]({SITE}data/none.html)")),
    (3, "a line of code of 161 columns", lambda d: _cells(d, _HOME, ("x = " + "1 + "*40 + "1", []))),
    (3, "no step that breaks long outputs", lambda d: _replace(d/"settings.ini", "popnb.documentation:wrap_outputs", "")),
    (4, "a command without reference", lambda d: _cells(d, "cli/20_main.ipynb", ('#| export\n@app.command("made-up")\ndef f(): ...', []))),
    (5, "a name without import", lambda d: _cells(d, _GUIDE, ("unknown_name", []))),
    (6, "an answer that no page links to", lambda d: [_replace(p, "troubleshooting.", "presets.")
        for p in [*(d/"nbs").rglob("*.ipynb"), d/"_quarto.yml"] if "troubleshooting." in p.read_text(encoding="utf-8")]),
    (6, "no page that says how to train on a GPU", lambda d: [p.unlink() for p in (d/"nbs").rglob("*.ipynb")
        if "slurm" in p.read_text(encoding="utf-8").lower()]),
    (7, "no page of a system", lambda d: (d/"nbs"/"reference"/"system_smtpd.ipynb").unlink()),
    (8, "signatures with backticks", lambda d: _replace(d/"settings.ini", "renderer = popnb.documentation.plain_signatures", "")),
    (9, "a figure without alternative text", lambda d: _cells(d, _HOME, ("plot()", _PICTURE))),
    (9, "a figure of single density", lambda d: _cells(d, _HOME, ("#| fig-alt: A curve.\nplot()", _PICTURE))),
    (9, "an alternative text over two lines", lambda d: _cells(d, _HOME, ("#| fig-alt: 'A curve\n# that falls.'\nplot()", _PICTURE))),
    (10, "a heading without text", lambda d: _cells(d, _HOME, "## Nothing", "## More")),
    (10, "a test of errors as the first example", lambda d: _cells(d, _HOME, ("#| export\ndef f(): ...", []),
        ("with expect_fail(InputError): f()", []))),
    (11, "no previous and next page", lambda d: _replace(d/"_quarto.yml", "page-navigation: true", "")),
)

def planted(root):
    "`(kind, what is planted, faults before, faults after)` of each plant, in a copy of what the checks read"
    root,texts = Path(root),("settings.ini", "_quarto.yml", "README.md", "CITATION.cff", "popnb/registry.py")
    with tempfile.TemporaryDirectory() as folder:
        whole,d = Path(folder)/"whole",Path(folder)/"planted"
        (whole/"popnb").mkdir(parents=True)
        for name in texts: shutil.copy(root/name, whole/name)
        shutil.copytree(root/"nbs", whole/"nbs", ignore=shutil.ignore_patterns(".*", "_proc", "_quarto.yml"))
        before = faults(whole)
        for kind,what,plant in PLANTS:
            shutil.copytree(whole, d)
            plant(d)
            yield kind, what, len(before[kind]), len(faults(d, [kind])[kind])
            shutil.rmtree(d)

def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("root", nargs="?", default=Path(__file__).resolve().parent.parent)
    p.add_argument("--kind", type=int, nargs="*", default=list(range(1, 12)))
    p.add_argument("--list", action="store_true", help="print each fault")
    p.add_argument("--plant", action="store_true", help="plant faults in a copy and show that each is found")
    o = p.parse_args()
    if o.plant:
        rows = list(planted(o.root))
        for kind,what,before,after in rows: print(f"{kind:2}  {before} -> {after}  {'found' if after > before else 'NOT FOUND'}: {what}")
        return 0 if all(after > before for *_,before,after in rows) else 1
    found = faults(o.root, o.kind)
    for k,fs in found.items():
        print(f"{len(fs):5}  {KINDS[k-1].__doc__}")
        for page,fault in fs if o.list else (): print(f"         {page}: {fault}")
    return 1 if any(found.values()) else 0

if __name__ == "__main__": sys.exit(main())
