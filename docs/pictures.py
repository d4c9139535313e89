"""Make the pictures of the documentation anew: .venv/bin/python docs/pictures.py, under xvfb-run without a display."""

from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from napari_rvae.widgets.demo import run_demo

PICTURES = Path(__file__).parent / "pictures"

with TemporaryDirectory() as folder:
    run_demo(screenshot=True, output=folder)
    for name in ("window.png", "summary.png"):
        picture = Image.open(Path(folder, name)).convert("RGB")
        picture.thumbnail((1600, 1200))
        picture.quantize(256, dither=Image.Dither.NONE).save(PICTURES / name, optimize=True)
