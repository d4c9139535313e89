"""Make the pictures of the documentation anew: .venv/bin/python docs/pictures.py, under xvfb-run without a display."""

from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from napari_rvae.widgets.demo import run_demo

PICTURES = Path(__file__).parent.absolute() / "pictures"

with TemporaryDirectory() as folder, chdir(folder):
    for file in run_demo(screenshot=True):
        if file.suffix == ".png":
            picture = Image.open(file).convert("RGB")
            picture.thumbnail((1400, 1000))
            picture.save(PICTURES / file.name, optimize=True)
