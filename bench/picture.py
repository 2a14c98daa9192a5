"""The figure on README's first screen, from the run that `popnb demo` made

    popnb demo --out /tmp/demo && python bench/picture.py /tmp/demo
"""
import sys
from pathlib import Path

from matplotlib.figure import Figure

from popnb.core import read_json

demo = Path(sys.argv[1])
metrics = read_json(demo/"run"/"metrics.json")
best = metrics["about"]["ceiling"]["srocc"]
rows = [
    ("training mean", {"value": 0., "low": 0., "high": 0.}, "#999999"),
    ("linear model", metrics["baselines"]["linear"]["srocc"], "#56b4e9"),
    ("popnb tabular", metrics["srocc"], "#0072b2")]

fig = Figure(figsize=(6.4, 2.4), dpi=110, layout="constrained")
ax = fig.subplots()
for y,(name,score,colour) in enumerate(rows):
    value,low,high = score["value"],score["low"],score["high"]
    ax.barh(y, value, color=colour, height=.6)
    if low is not None and high is not None: ax.plot([low, high], [y, y], color="black", lw=1.5)
    text = f"{value:.2f}" if value else "no order"
    ax.text(.01, y, text, va="center", color="white" if value > .1 else "black", fontsize=9)
ax.axvline(best, color="#d55e00", lw=2)
ax.text(best-.01, -.72, f"best possible {best:.2f}", color="#d55e00", ha="right", fontsize=9)
ax.set(yticks=range(len(rows)), yticklabels=[r[0] for r in rows], xlim=(0, 1), ylim=(len(rows)-.5, -1))
ax.set_xlabel(f"Spearman correlation on {metrics['srocc']['n']} test videos of unknown creators, 95 % interval")
ax.spines[["top", "right"]].set_visible(False)
fig.savefig(Path(__file__).parent.parent/"nbs"/"images"/"demo.png")
