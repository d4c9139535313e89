"""What README and documentation show works as it stands there, and their links lead somewhere."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
RAW = "https://raw.githubusercontent.com/napari-rvae/napari-rvae/main/"
BLOB = "https://github.com/napari-rvae/napari-rvae/blob/main/"


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf8"), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def image_file(tmp_path_factory):
    from napari_rvae.samples import Microscope, interface

    path = tmp_path_factory.mktemp("image") / "image.npy"
    for name, dose in (("image.npy", 400), ("sum.npy", 40_000)):
        np.save(path.with_name(name), interface(replace(Microscope(), size=150, dose=dose)).image)
    return path


@pytest.fixture
def quick(monkeypatch):
    """Two epochs where nobody says how many."""
    from napari_rvae.settings import TrainSettings

    init = TrainSettings.__init__
    monkeypatch.setattr(TrainSettings, "__init__", lambda self, **given: init(self, **{"epochs": 2, **given}))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("page", ["README.md", "docs/scripting.md"])
def test_python_examples_run_and_give_every_atom_its_latents(page, image_file, tmp_path, monkeypatch):
    from napari_rvae.training import physics

    monkeypatch.setattr(physics, "_TERMS", dict(physics._TERMS))  # what the examples register is theirs alone
    monkeypatch.chdir(tmp_path)
    code = "\n".join(blocks(ROOT / page, "python")).replace("epochs=100", "epochs=2")
    code = code.replace("image.dm4", image_file.as_posix())
    code = code.replace("sum.dm4", image_file.with_name("sum.npy").as_posix())
    names = {}
    exec(compile(code, page, "exec"), names)
    table = pd.read_csv("latent.csv")
    assert {"z1", "z2", "angle", "dy", "dx"} <= set(table)
    assert len(table) == len(names["atoms"]) > 30


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_shown_exist_with_their_options(page):
    import typer

    from napari_rvae.cli import app

    commands = typer.main.get_command(app).commands
    for line in "\n".join(blocks(page, "sh")).replace("\\\n", "").splitlines():
        words = shlex.split(line.replace("for image in series/*.dm4; do ", "").split(";")[0], comments=True)
        if words[:1] == ["napari-rvae"] and len(words) > 1:
            known = {option for parameter in commands[words[1]].params for option in parameter.opts}
            assert {word for word in words if word.startswith("-")} <= known, line
        elif words[:1] == ["make"] and len(words) > 1:
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf8")):
        file = target.removeprefix(RAW).removeprefix(BLOB).partition("#")[0]
        if "://" in file or not file:
            continue
        assert (ROOT if target.startswith("https:") else page.parent).joinpath(file).exists(), target


def test_every_column_that_a_run_writes_is_explained(image_file):
    from napari_rvae import TrainSettings, analyze_image, load_image

    quick = TrainSettings(epochs=1, hidden=16, start="scratch", invariance="rotation,translation,scale,strain")
    table = analyze_image(load_image(image_file), training=quick).table
    explained = set(re.findall(r"`([a-z_0-9]+)`", (ROOT / "docs" / "tables.md").read_text(encoding="utf8")))
    assert {re.sub(r"^z\d+", "z1", name) for name in table} <= explained
