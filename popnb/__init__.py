"Predict how popular a short video will be"
__version__ = "0.1.0"

_HOME = {"train": "popnb.runs.train", "evaluate": "popnb.evaluation.report", "load": "popnb.models.predictor"}

def __getattr__(name):
    "The main verbs, imported when first used: `import popnb` itself loads nothing heavy"
    if name not in _HOME: raise AttributeError(f"module 'popnb' has no attribute {name!r}")
    from importlib import import_module
    return getattr(import_module(_HOME[name]), name)

def __dir__(): return sorted([*globals(), *_HOME])
