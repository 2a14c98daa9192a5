"Package metadata comes from `settings.ini`, where nbdev keeps it too."
import configparser
from pathlib import Path
from setuptools import find_packages, setup

root = Path(__file__).parent
parser = configparser.ConfigParser(delimiters=["="])
parser.read(root/"settings.ini", encoding="utf-8")
cfg = parser["DEFAULT"]

def needs(name): return cfg.get(f"{name}requirements", "").split()

extras = {name: needs(f"{name}_") for name in ("torch", "encoders", "tune", "sklearn", "trends", "search", "boost", "icl", "onnx", "youtube", "track", "app", "scale", "dev")}

setup(
    name=cfg["lib_name"], version=cfg["version"], description=cfg["description"], keywords=cfg["keywords"],
    author=cfg["author"], author_email=cfg["author_email"], license="Apache-2.0", url=cfg["git_url"],
    long_description=(root/"README.md").read_text(encoding="utf-8"), long_description_content_type="text/markdown",
    packages=find_packages(include=["popnb", "popnb.*"]), include_package_data=True,
    python_requires=f">={cfg['min_python']}", install_requires=needs(""), extras_require=extras,
    entry_points={"console_scripts": cfg["console_scripts"].split(), "nbdev": [f"{cfg['lib_name']}={cfg['lib_name']}._modidx:d"]},
    zip_safe=False,
)
