"""Predict how popular a short video will be

The workflow, from a file of videos to an answer; `help(popnb.train)` and the like list all parameters:

    import popnb
    table, report = popnb.read_source("csv", "videos.csv")    # or simulate, collect, read_table
    table = popnb.clean(table).table                          # drop and flag rows by named rules
    run = popnb.train("tabular", table, "runs/first")         # split, fit, score, write a run folder
    popnb.leaderboard(["runs/first", "runs/second"])          # runs on the same test rows
    model = popnb.load("runs/first")                          # any system, from its folder
    popnb.predict(model, ["clip.mp4"], title="Rice in 1 min") # videos, thumbnails, folders or tables
    popnb.explain_video("runs/first", "clip.mp4", "why")      # what moved the score

The same in a shell: `popnb --help`. What works on this machine: `popnb.doctor()`.
"""
__version__ = "0.1.0"

import sys
import warnings
from .docstrings import Documented

warnings.filterwarnings("ignore", message="IProgress not found")       # tqdm's, in notebooks; popnb draws its own bars
if not any(isinstance(f, Documented) for f in sys.meta_path): sys.meta_path.insert(0, Documented("popnb", leave=("cli",)))

# Verb -> module and, if it is called differently there, its name
_VERBS = {
    "read_source": "popnb.data.sources", "read_table": "popnb.data.table", "write_table": "popnb.data.table",
    "simulate": "popnb.simulation.dataset", "collect": "popnb.youtube.collector", "download": "popnb.media.download",
    "check": "popnb.media.integrity:check_paths", "clean": "popnb.data.cleaning",
    "handmade": "popnb.features.signal_table", "systems": "popnb.models.predictor:systems_table",
    "train": "popnb.runs.train", "load": "popnb.models.predictor", "predict": "popnb.runs.predict:predict_videos",
    "evaluate": "popnb.evaluation.report", "evaluate_run": "popnb.runs.train",
    "leaderboard": "popnb.evaluation.leaderboard", "ablate": "popnb.runs.ablation:ablate_run", "explain_video": "popnb.explain.report:explain",
    "doctor": "popnb.environment",
}
__all__ = [*_VERBS]

def __getattr__(name):
    "Import a verb when it is first used, so that `import popnb` loads nothing heavy"
    if name not in _VERBS:
        from difflib import get_close_matches
        close = get_close_matches(name, _VERBS, 1)
        hint = f". Did you mean {close[0]!r}?" if close else ""
        raise AttributeError(f"module 'popnb' has no attribute {name!r}{hint}")
    from importlib import import_module
    module,_,own = _VERBS[name].partition(":")
    globals()[name] = verb = getattr(import_module(module), own or name)
    return verb

def __dir__(): return sorted({*_VERBS, *(k for k in globals() if k[:1] != "_" or k[:2] == "__")} - {"sys", "warnings", "docstrings", "Documented"})
