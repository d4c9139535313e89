"""What is shipped: the built wheel, its manifest, and imports that cost nothing before the first use."""

import ast
import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "skimage", "sklearn", "numba", "pandas", "napari", "qtpy", "pyqtgraph"}


def run(python, code, **environment):
    """Run code in a process of its own and return what it printed, read as JSON."""
    env = {**os.environ, "NAPARI_CONFIG": "", "QT_QPA_PLATFORM": "offscreen", **environment}
    done = subprocess.run([python, "-c", code], env=env, cwd=Path(python).parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def wheel_python(tmp_path_factory):
    """Build the wheel and install it where the installed packages are seen, but not this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    build = ["wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", str(folder), str(ROOT)]
    subprocess.run([*pip, *build], check=True)
    venv.create(folder / "env", symlinks=os.name != "nt")
    bin_name, executable = ("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")
    python = folder / "env" / bin_name / executable
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)], check=True)
    site = run(str(python), "import json, sysconfig; print(json.dumps(sysconfig.get_path('purelib')))")
    Path(site, "installed.pth").write_text(sysconfig.get_path("purelib"))
    return str(python)


def test_wheel_has_a_manifest_whose_commands_can_be_imported(wheel_python):
    code = """if True:
        import importlib, json, napari_rvae
        from npe2 import PluginManifest
        manifest = PluginManifest.from_distribution("napari-rvae")
        commands = manifest.contributions.commands or []
        for command in commands:
            module, _, name = command.python_name.partition(":")
            assert callable(getattr(importlib.import_module(module), name)), command.id
        widgets = [widget.display_name for widget in manifest.contributions.widgets or []]
        print(json.dumps([napari_rvae.__file__, manifest.name, widgets]))
    """
    module, name, widgets = run(wheel_python, code)
    assert not Path(module).is_relative_to(ROOT)
    assert name == "napari-rvae"
    assert widgets == ["Find atoms", "Train rVAE", "Explore latent space"]


def test_wheel_brings_the_command_and_its_version(wheel_python):
    script = Path(wheel_python).with_name("napari-rvae" + (".exe" if os.name == "nt" else ""))
    shown = subprocess.run([script, "--help"], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "run" in shown.stdout
    assert run(wheel_python, "import json, napari_rvae; print(json.dumps(napari_rvae.__version__))")[0].isdigit()


@pytest.mark.parametrize(
    "statement",
    [
        "import napari_rvae",
        "import napari_rvae.settings, napari_rvae.errors",
        "import npe2; npe2.PluginManifest.from_distribution('napari-rvae')",
    ],
)
def test_first_imports_are_light(statement):
    code = f"import json, sys; {statement}; print(json.dumps(sorted(sys.modules)))"
    assert not HEAVY & set(run(sys.executable, code))


def test_help_of_the_command_is_light():
    code = """if True:
        import contextlib, io, json, sys
        from napari_rvae.cli import main
        sys.argv = ["napari-rvae", "--help"]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
            main()
        print(json.dumps(sorted(sys.modules)))
    """
    assert not {"torch", "skimage", "sklearn", "numba", "napari"} & set(run(sys.executable, code))


def test_opening_the_plugins_menu_imports_nothing_of_ours():
    """Napari itself loads skimage and numba; what loads nothing of ours cannot load them, nor torch."""
    code = """if True:
        import json, sys, napari
        viewer = napari.Viewer(show=False)
        menu = viewer.window.plugins_menu
        menu.aboutToShow.emit()
        actions = [a for top in menu.actions() for a in (top.menu().actions() if top.menu() else [top])]
        texts = [action.text() for action in actions]
        ours = [name for name in sys.modules if name.startswith("napari_rvae.") or name == "torch"]
        viewer.close()
        print(json.dumps([texts, ours]))
    """
    texts, ours = run(sys.executable, code)
    assert any("Train rVAE" in text for text in texts)
    assert ours == []


def test_every_name_of_the_api_can_be_imported():
    import napari_rvae

    for name in napari_rvae.__all__:
        assert getattr(napari_rvae, name)
    with pytest.raises(AttributeError, match="no attribute 'typo'"):
        napari_rvae.typo  # noqa: B018


def test_every_library_that_is_imported_is_asked_for():
    """Not only there because another one brings it: such an import fails on a fresh install one day."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["tracks"]]
    renamed = {"pillow": "PIL", "scikit-image": "skimage", "scikit-learn": "sklearn"}
    known = {renamed.get(name, name) for name in (re.match(r"[\w-]+", one).group() for one in asked)}
    used = set()
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf8"))):
            if isinstance(node, ast.Import):
                used |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                used.add(node.module.partition(".")[0])
    assert used - set(sys.stdlib_module_names) - {"napari_rvae"} == known


def test_conda_recipe_needs_what_the_package_needs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    recipe = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text())
    renamed = {"dask[array]": "dask-core", "napari[partsegcore]": "napari", "torch": "pytorch"}
    needed = {renamed.get(name, name): version for name, version in (d.split(">=") for d in project["dependencies"])}
    needed["partsegcore-compiled-backend"] = "0.15.11"  # conda knows no extras
    needed["python"] = project["requires-python"].removeprefix(">=")
    assert dict(line.split(" >=") for line in recipe["requirements"]["run"]) == needed
