"""The command line: what scripts rely on, and one clear line for everything that goes wrong."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from napari_rvae import cli
from napari_rvae.io import load_image
from napari_rvae.patches import nearest_neighbor_distance
from napari_rvae.samples import Microscope, cards, interface
from napari_rvae.settings import (
    AverageSettings,
    BaselineSettings,
    CountSettings,
    FinderSettings,
    FindSettings,
    PatchSettings,
    TrainSettings,
)

QUICK = ("--epochs", "2", "--hidden", "16", "--start", "scratch", "--threads", "1")
NAPARI_RVAE = str(Path(sys.executable).with_name("napari-rvae"))


@pytest.fixture
def run(capsys):
    def command(*arguments: object, expect: int = 0) -> str:
        """Run a command in this process; give what it wrote on stdout, or on stderr when it must fail."""
        status = cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert status == expect, err
        if expect == 0:
            assert err == ""
            return out
        assert err.startswith("napari-rvae: ")
        assert err.endswith("\n")
        assert err.count("\n") == 1
        assert "Traceback" not in err
        return err

    return command


@pytest.fixture(scope="session")
def image(tmp_path_factory):
    scene = interface(Microscope(size=160, dose=400))
    path = tmp_path_factory.mktemp("cli") / "image.tif"
    resolution = (1 / scene.pixel_size,) * 2
    tifffile.imwrite(path, scene.image, imagej=True, resolution=resolution, metadata={"unit": "nm"})
    return path


@pytest.fixture(scope="session")
def deck(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deck")
    patches, truth = cards(1, n=48, size=20)
    np.save(folder / "cards.npy", patches)
    np.savez(folder / "cards.npz", image=patches)
    np.save(folder / "labels.npy", np.where(np.arange(48) < 24, truth["label"], -1))
    np.save(folder / "condition.npy", truth["label"].to_numpy())
    return folder


# Help and options -----------------------------------------------------------------------------------------------------


def test_help_is_light_and_complete():
    code = (
        "import sys; from napari_rvae import cli; cli.main(['--help']); "
        "heavy = {'torch', 'skimage', 'sklearn', 'numba', 'napari', 'pandas', 'scipy'}; print(heavy & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "set()"
    for command in ("find", "run", "train", "average", "encode", "repeat", "demo"):
        assert f" {command} " in shown


def test_entry_point():
    done = subprocess.run([NAPARI_RVAE, "find", "nowhere.tif", "-o", "a.csv"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "napari-rvae: there is no file nowhere.tif\n"
    assert done.stdout == ""
    assert subprocess.run([NAPARI_RVAE, "--version"], capture_output=True, text=True).stdout.startswith("napari-rvae ")


@pytest.mark.parametrize(
    ("command", "models"),
    [
        ("find", (FindSettings,)),
        ("train-finder", (FinderSettings,)),
        ("run", (FindSettings, PatchSettings, TrainSettings)),
        ("train", (PatchSettings, TrainSettings)),
        ("average", (FindSettings, PatchSettings, AverageSettings)),
        ("encode", (FindSettings,)),
        ("baseline", (BaselineSettings, FindSettings, PatchSettings)),
        ("classes", (CountSettings, FindSettings, PatchSettings)),
    ],
)
def test_every_setting_is_an_option(run, command, models, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    shown = run(command, "--help")
    for model in models:
        for name, field in model.model_fields.items():
            if command == "train" and name in ("label_column", "condition_columns"):
                continue  # ready-made patches have no columns
            extra = field.json_schema_extra or {}
            assert f"{extra.get('option', '--' + name.replace('_', '-'))} " in shown
            assert field.description.split(".")[0].split(",")[0][:20] in " ".join(shown.split())


def test_options_reach_the_settings(run, image, tmp_path, monkeypatch):
    import napari_rvae.workflows

    given = {}

    def instead(loaded, find, patch, training, **more):
        given.update(find=find, patch=patch, training=training, **more)
        raise MemoryError

    monkeypatch.setattr(napari_rvae.workflows, "analyze_image", instead)
    options = [
        "--patch",
        "24",
        "--latent",
        "3",
        "--invariance",
        "strain,rotation",
        "--no-early-stopping",
        "--contrast",
        "dark",
        "--where",
        "y>3",
    ]
    run("run", image, "-o", tmp_path / "r", *options, expect=2)
    assert given["patch"] == PatchSettings(size=24)
    assert given["training"] == TrainSettings(latent=3, invariance=("rotation", "strain"), early_stopping=False)
    assert given["find"] == FindSettings(contrast="dark")
    assert given["where"] == "y>3"


# Commands -------------------------------------------------------------------------------------------------------------


def test_find(run, image, tmp_path):
    out = run("find", image, "-o", tmp_path / "new" / "atoms.csv")
    assert "atoms: " in out
    assert "bright atoms · neighbours at" in out
    atoms = pd.read_csv(tmp_path / "new" / "atoms.csv")
    columns = [
        "atom_id",
        "y",
        "x",
        "y_nm",
        "x_nm",
        "amplitude",
        "background",
        "sigma",
        "snr",
        "error",
        "sublattice",
        "flag",
    ]
    assert list(atoms) == columns
    assert len(atoms) > 80
    np.testing.assert_allclose(atoms["y_nm"], atoms["y"] * 0.018)
    assert "--force" in run("find", image, "-o", tmp_path / "new" / "atoms.csv", expect=2)
    run("find", image, "-o", tmp_path / "new" / "atoms.csv", "--force")
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["atoms.csv"]


def test_find_nothing_says_what_to_try(run, tmp_path):
    np.save(tmp_path / "noise.npy", np.random.default_rng(0).normal(size=(128, 128)))
    assert "lower the threshold" in run("find", tmp_path / "noise.npy", "-o", tmp_path / "atoms.csv")


def test_train_finder(run, image, tmp_path):
    run("find", image, "-o", tmp_path / "atoms.csv")
    out = run("train-finder", image, tmp_path / "atoms.csv", "-o", tmp_path / "mine.safetensors", "--steps", "10")
    assert "F1" in out
    learned = ("--search", "learned", "--finder", tmp_path / "mine.safetensors")
    assert "atoms" in run("find", image, "-o", tmp_path / "learned.csv", *learned)
    assert "needs a finder" in run("find", image, "-o", tmp_path / "other.csv", *learned[:2], expect=2)
    assert "nothing to learn from" in run("train-finder", "-o", tmp_path / "other.safetensors", expect=2)
    assert "no table of atoms" in run("train-finder", image, "-o", tmp_path / "other.safetensors", expect=2)


def test_find_in_a_stack(run, image, tmp_path):
    frames = tifffile.imread(image)
    np.save(tmp_path / "stack.npy", np.stack([frames, frames[:, ::-1]]))
    run("find", tmp_path / "stack.npy", "-o", tmp_path / "atoms.csv")
    assert set(pd.read_csv(tmp_path / "atoms.csv")["frame"]) == {0, 1}


def test_run_encode_and_repeat(run, image, tmp_path):
    out = run("run", image, "-o", tmp_path / "a", "--seed", "3", *QUICK)
    spacing = nearest_neighbor_distance(pd.read_csv(tmp_path / "a" / "latent.csv"))
    (told,) = re.findall(r"neighbours at (\S+) px = (\S+) nm · width \(sigma\) \S+ px = \S+ nm", out)
    pixel = load_image(image).pixel_size[0]
    np.testing.assert_allclose(np.array(told, float), [spacing, spacing * pixel], rtol=0.05)
    assert "encoded, 2 epochs on" in out
    first = pd.read_csv(tmp_path / "a" / "latent.csv")
    assert {"z1", "z2", "angle", "dy", "dx", "reconstruction_error"} <= set(first)
    run("repeat", tmp_path / "a" / "recipe.json", "-o", tmp_path / "b")
    assert (tmp_path / "b" / "latent.csv").read_bytes() == (tmp_path / "a" / "latent.csv").read_bytes()
    run("encode", tmp_path / "a" / "model.safetensors", image, "-o", tmp_path / "c.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "c.csv"), first)
    run("encode", tmp_path / "a" / "model.safetensors", image, "-o", tmp_path / "c.csv", expect=2)


def test_reconstruct(run, image, tmp_path):
    run("run", image, "-o", tmp_path / "a", *QUICK)
    model, target = tmp_path / "a" / "model.safetensors", tmp_path / "out.tif"
    out = run("reconstruct", model, image, "-o", target, "--difference", tmp_path / "left.tif")
    assert out.endswith("out.tif\n")
    before, after, left = load_image(image), load_image(target), load_image(tmp_path / "left.tif")
    assert after.pixel_size == pytest.approx(before.pixel_size, rel=1e-4)
    assert after.unit == before.unit
    np.testing.assert_allclose(after.data + left.data, before.data, rtol=1e-3)
    run("reconstruct", model, image, "-o", target, expect=2)
    assert "must end in" in run("reconstruct", model, image, "-o", tmp_path / "out.png", expect=2)


def test_manifold_and_attribute(run, deck, tmp_path):
    from PIL import Image

    run("train", deck / "cards.npy", "-o", tmp_path, *QUICK)
    model, table, groups = tmp_path / "model.safetensors", tmp_path / "latent.csv", ("--having", "z1 > 0", "--lacking")
    for name, size in (("picture.png", (500, 500)), ("strip.png", (700, 100))):
        command = (
            ("manifold", model, "--steps", 5)
            if name == "picture.png"
            else ("attribute", model, table, *groups, "z1 < 0")
        )
        assert name in run(*command, "-o", tmp_path / name)
        assert "--force" in run(*command, "-o", tmp_path / name, expect=2)
        with Image.open(tmp_path / name) as picture:
            assert picture.size == size
    assert "must end in .png" in run("manifold", model, "-o", tmp_path / "picture.jpg", expect=2)
    assert "no classes" in run("manifold", model, "-o", tmp_path / "other.png", "--class", "1", expect=2)
    assert "same atoms" in run("attribute", model, table, *groups, "z1 > 0", "-o", tmp_path / "other.png", expect=2)
    assert not (tmp_path / "other.png").exists()


def test_atoms_made_by_hand(run, image, tmp_path):
    y, x = np.mgrid[20:140:10, 20:140:10].reshape(2, -1)
    pd.DataFrame({"x": x + 0.25, "y": y}).to_csv(tmp_path / "atoms.csv", index=False)
    out = run("run", image, "-o", tmp_path / "a", "--atoms", tmp_path / "atoms.csv", *QUICK)
    assert "neighbours" not in out  # they were not sought
    assert pd.read_csv(tmp_path / "a" / "latent.csv")["x"].tolist() == (x + 0.25).tolist()
    run("repeat", tmp_path / "a" / "recipe.json", "-o", tmp_path / "b")
    (tmp_path / "atoms.csv").write_text("y,x\n1,2\n")
    assert "has changed" in run("repeat", tmp_path / "a" / "recipe.json", "-o", tmp_path / "c", expect=2)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("name", ["cards.npy", "cards.npz"])
def test_train_on_patches(run, deck, tmp_path, name):
    run("train", deck / name, "-o", tmp_path / "a", "--model", "vae", *QUICK)
    assert len(pd.read_csv(tmp_path / "a" / "latent.csv")) == 48
    run("encode", tmp_path / "a" / "model.safetensors", deck / name, "-o", tmp_path / "z.csv")
    assert len(pd.read_csv(tmp_path / "z.csv")) == 48


def test_baselines_of_image_and_patches(run, image, deck, tmp_path):
    run("baseline", image, "-o", tmp_path / "a.csv", "--where", "snr > 10")
    table = pd.read_csv(tmp_path / "a.csv")
    assert {"y_nm", "snr", "z2", "angle", "class"} <= set(table)
    assert (table["z1"].notna() == (table["snr"] > 10)).all()
    options = ["--method", "nmf", "--no-aligned", "--latent", "3", "--classes", "4"]
    run("baseline", deck / "cards.npy", "-o", tmp_path / "b.csv", *options)
    assert {"z3", "class_probability"} <= set(pd.read_csv(tmp_path / "b.csv"))
    run("baseline", deck / "cards.npy", "-o", tmp_path / "b.csv", expect=2)


def test_number_of_classes_of_image_and_patches(run, image, deck, tmp_path):
    few = ["--most", "3", "--resamples", "2", "--sample", "60"]
    told = run("classes", deck / "cards.npy", "-o", tmp_path / "a.csv", *few)
    assert pd.read_csv(tmp_path / "a.csv")["classes"].tolist() == [2, 3]
    assert told.startswith("  2  ")
    assert "classes" in told.splitlines()[2]
    run("classes", image, "-o", tmp_path / "b.csv", "--where", "snr > 10", *few)
    assert len(pd.read_csv(tmp_path / "b.csv")) == 2
    assert "must end in .csv" in run("classes", deck / "cards.npy", "-o", tmp_path / "a.txt", *few, expect=2)


def test_train_an_ensemble(run, deck, tmp_path):
    options = ["--members", "2", "--model", "jvae", "--classes", "2", *QUICK]
    run("train", deck / "cards.npy", "-o", tmp_path / "a", *options)
    table = pd.read_csv(tmp_path / "a" / "latent.csv")
    assert {"class_dispersion", "z1_dispersion"} <= set(table)
    run("encode", tmp_path / "a" / "model.safetensors", deck / "cards.npy", "-o", tmp_path / "z.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "z.csv"), table)


def test_train_with_labels(run, deck, tmp_path):
    options = ["--model", "ssrvae", "--labels", deck / "labels.npy", "--classes", "4", *QUICK, "--epochs", "8"]
    run("train", deck / "cards.npy", "-o", tmp_path / "a", *options)
    table = pd.read_csv(tmp_path / "a" / "latent.csv")
    assert {"class", "class_probability"} <= set(table)
    run("repeat", tmp_path / "a" / "recipe.json", "-o", tmp_path / "b")
    assert (tmp_path / "b" / "latent.csv").read_bytes() == (tmp_path / "a" / "latent.csv").read_bytes()


def test_clean_copies_are_learned_from(run, deck, image, tmp_path):
    np.save(tmp_path / "clean.npy", 100 * np.load(deck / "cards.npy") + 1)
    clean = ["--clean", tmp_path / "clean.npy"]
    run("train", deck / "cards.npy", "-o", tmp_path / "a", *clean, "--added-noise", "0.3", *QUICK)
    run("repeat", tmp_path / "a" / "recipe.json", "-o", tmp_path / "b")
    one, other = (pd.read_csv(tmp_path / name / "latent.csv") for name in "ab")
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    np.save(tmp_path / "few.npy", np.load(deck / "cards.npy")[:20])
    command = ["train", deck / "cards.npy", "-o", tmp_path / "c", "--clean", tmp_path / "few.npy"]
    assert "a clean copy of every patch" in run(*command, expect=2)
    pixels = tifffile.imread(image)
    np.save(tmp_path / "twice.npy", 2 * pixels)
    run("run", image, "-o", tmp_path / "d", "--clean", tmp_path / "twice.npy", *QUICK)
    assert '"clean"' in (tmp_path / "d" / "recipe.json").read_text()


def test_train_with_condition(run, deck, tmp_path):
    condition = ["--condition", deck / "condition.npy"]
    run("train", deck / "cards.npy", "-o", tmp_path / "a", "--model", "cvae", *condition, *QUICK)
    run("encode", tmp_path / "a" / "model.safetensors", deck / "cards.npy", "-o", tmp_path / "z.csv", *condition)
    assert len(pd.read_csv(tmp_path / "z.csv")) == 48


def test_a_condition_is_used_or_refused(run, deck, image, tmp_path):
    run("train", deck / "cards.npy", "-o", tmp_path / "a", "--model", "vae", *QUICK)
    model = tmp_path / "a" / "model.safetensors"
    condition = ["--condition", deck / "condition.npy", "-o", tmp_path / "z.csv"]
    assert "takes no condition" in run("encode", model, deck / "cards.npy", *condition, expect=2)
    assert "give these with --atoms" in run("encode", model, image, *condition, expect=2)


@pytest.mark.parametrize(
    ("model", "option", "value"),
    [
        ("rvae", "--label-column", "kind"),
        ("rvae", "--condition-columns", "kind"),
        ("rvae", "--classes", 3),
        ("crvae", "--class-capacity", 1),
        ("jrvae", "--label-column", "kind"),
    ],
)
def test_what_a_model_does_not_use_is_refused(run, image, tmp_path, model, option, value):
    message = run("run", image, "-o", tmp_path / "a", "--model", model, option, value, expect=2)
    assert f"{model} takes no {option}" in message


def test_average_of_patches(run, deck, tmp_path):
    run("average", deck / "cards.npy", "-o", tmp_path / "a", "--kinds", "4")
    table = pd.read_csv(tmp_path / "a" / "classes.csv")
    assert len(table) == 48
    assert {"class", "angle", "dy", "dx"} <= set(table)
    images = tifffile.imread(tmp_path / "a" / "averages.tif")
    assert images.shape[-2:] == (20, 20)
    assert (tmp_path / "a" / "summary.png").stat().st_size > 3000
    run("repeat", tmp_path / "a" / "recipe.json", "-o", tmp_path / "b")
    assert (tmp_path / "b" / "classes.csv").read_bytes() == (tmp_path / "a" / "classes.csv").read_bytes()


def test_average_of_an_image(run, image, tmp_path):
    run("average", image, "-o", tmp_path / "a", "--where", "sublattice == 0")
    table = pd.read_csv(tmp_path / "a" / "classes.csv")
    assert {"atom_id", "y", "x", "y_nm", "class"} <= set(table)
    assert table["class"].notna().all()


def test_what_counts_as_patches_can_be_overruled(run, deck, tmp_path):
    assert "belong to an image" in run(
        "average", deck / "cards.npy", "-o", tmp_path / "a", "--patches", "--where", "y > 1", expect=2
    )
    assert run("average", deck / "cards.npy", "-o", tmp_path / "a", "--image", "--kinds", "2", expect=2)


def test_apply_to_many_images(run, image, tmp_path, capsys):
    run("run", image, "-o", tmp_path / "a", *QUICK)
    model = tmp_path / "a" / "model.safetensors"
    assert run("apply", model, image, "-o", tmp_path / "b").startswith("1 of 1 images encoded")
    assert len(pd.read_csv(tmp_path / "b" / f"{image.stem}.csv")) > 30
    np.save(tmp_path / "empty.npy", np.zeros((40, 40)))
    message = run("apply", model, image, tmp_path / "empty.npy", "-o", tmp_path / "c", expect=2)
    assert "1 image failed, see summary.csv; the first: " in message
    assert (tmp_path / "c" / f"{image.stem}.csv").exists()
    assert "exists already" in run("apply", model, image, "-o", tmp_path / "b", expect=2)
    np.save(tmp_path / "bright.npy", 20 * load_image(image).data)
    assert cli.main(["apply", str(model), str(tmp_path / "bright.npy"), "-o", str(tmp_path / "d")]) == 0
    assert "bright.npy: The model does not explain these" in capsys.readouterr().err
    assert cli.main(["encode", str(model), str(tmp_path / "bright.npy"), "-o", str(tmp_path / "e.csv")]) == 0
    assert "train with the normalization 'patch'" in capsys.readouterr().err


def test_interrupted_run_is_gone_on_with(run, image, tmp_path, monkeypatch):
    from napari_rvae import workflows
    from napari_rvae.training import checkpoints

    analyze = workflows.analyze_image

    def interrupted(*arguments, **more):
        def report(one):
            if one.epoch == 1:
                raise KeyboardInterrupt

        return analyze(*arguments, **more, report=report)

    run("run", image, "-o", tmp_path / "whole", *QUICK)
    command = ["run", image, "-o", tmp_path / "out", *QUICK]
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "EVERY", 0.0)
        patch.setattr(workflows, "analyze_image", interrupted)
        assert "go on with --resume" in run(*command, expect=130)
    assert "interrupted after epoch 0; go on with it with --resume" in run(*command, expect=2)
    assert "with other settings" in run(*command, "--resume", "--seed", "7", expect=2)
    run(*command, "--resume")
    assert (tmp_path / "out" / "latent.csv").read_bytes() == (tmp_path / "whole" / "latent.csv").read_bytes()
    assert not (tmp_path / "out" / "interrupted").exists()
    assert "leave --resume out" in run(*command, "--resume", "--force", expect=2)


# What goes wrong ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["find"], "Missing argument 'IMAGE'"),
        (["find", "a.npy"], "Missing option '--output'"),
        (["find", "a.npy", "b.npy", "-o", "c.csv"], "b.npy"),
        (["find", "a.npy", "-o", "c.csv", "--spacing", "wide"], "--spacing"),
        (["find", "a.npy", "-o", "c.csv", "--spacing", "0.5"], "--spacing: input should be greater than 1"),
        (
            ["find", "a.npy", "-o", "c.csv", "--contrast", "grey"],
            "--contrast: input should be 'auto', 'bright' or 'dark'",
        ),
        (["find", "a.npy", "-o", "c.xls"], ".csv or .parquet"),
        (["find", "a.npy", "-o", "c.csv", "--sapcing", "3"], "--sapcing"),
        (["run", "a.npy", "-o", "c", "--patch", "3"], "--patch: input should be greater than or equal to 8"),
        (["run", "a.npy", "-o", "c", "--invariance", "rotation,mirror"], "unknown invariance mirror"),
        (["run", "a.npy", "-o", "c", "--model", "gan"], "--model"),
        (["run", "a.npy", "-o", "c", "--device", "abacus"], "--device"),
        (["train", "a.npy", "-o", "c"], "there is no file"),
        (["encode", "model.safetensors", "a.npy", "-o", "c.csv"], "model.safetensors"),
        (["repeat", "recipe.json", "-o", "c"], "there is no file"),
        (["fnid"], "fnid"),
    ],
)
def test_misuse(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in run(*arguments, expect=2)
    assert list(tmp_path.iterdir()) == []


RNG = np.random.default_rng(0)
BAD = {
    "constant": np.ones((80, 80)),
    "noise-free ramp": np.arange(6400.0).reshape(80, 80),
    "all missing": np.full((80, 80), np.nan),
    "infinite": np.where(np.arange(6400).reshape(80, 80) == 7, np.inf, np.full((80, 80), np.nan)),
    "one pixel wide": RNG.random((80, 1)),
    "tiny": RNG.random((3, 3)),
    "colour": RNG.integers(0, 255, (60, 60, 3), dtype=np.uint8),
    "complex": RNG.random((60, 60)) * 1j,
    "yes or no": np.zeros((60, 60), bool),
    "five axes": np.zeros((2, 2, 2, 20, 20)),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_images(run, tmp_path, name):
    np.save(tmp_path / "bad.npy", BAD[name])
    run("run", tmp_path / "bad.npy", "-o", tmp_path / "out", *QUICK, expect=2)
    assert [file.name for file in tmp_path.iterdir()] == ["bad.npy"]


def test_one_atom(run, image, tmp_path):
    (tmp_path / "one.csv").write_text("y,x\n80,80\n")
    one = ["--atoms", tmp_path / "one.csv"]
    assert "too few" in run("run", image, "-o", tmp_path / "out", *one, "--patch", "16", *QUICK, expect=2)
    run("run", image, "-o", tmp_path / "out", *one, *QUICK, expect=2)


def test_patches_larger_than_the_image(run, image, tmp_path):
    run("run", image, "-o", tmp_path / "out", "--patch", "400", *QUICK, expect=2)


def test_fewer_patches_than_a_batch(run, deck, tmp_path):
    run("train", deck / "cards.npy", "-o", tmp_path / "a", "--batch-size", "5000", *QUICK)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((30, 20), "patches are"), ((3, 20, 20), "too few"), ((30, 20, 18), "(n, h, h)"), ((30, 2, 2), "")],
)
def test_bad_patches(run, tmp_path, shape, message):
    np.save(tmp_path / "bad.npy", np.random.default_rng(0).random(shape))
    assert message in run("train", tmp_path / "bad.npy", "-o", tmp_path / "out", *QUICK, expect=2)


def test_bad_labels(run, deck, tmp_path):
    np.save(tmp_path / "short.npy", np.zeros(5, int))
    np.save(tmp_path / "large.npy", np.full(48, 9))
    train = ["train", deck / "cards.npy", "-o", tmp_path / "out", "--model", "ssvae", *QUICK]
    assert "48 patches" in run(*train, "--classes", 4, "--labels", tmp_path / "short.npy", expect=2)
    run(*train, "--classes", 4, "--labels", tmp_path / "large.npy", expect=2)
    run(*train, "--classes", 4, expect=2)
    run(*train, "--labels", deck / "labels.npy")  # as many classes as have labels


def test_damaged_model(run, deck, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 500)
    run("encode", tmp_path / "model.safetensors", deck / "cards.npy", "-o", tmp_path / "z.csv", expect=2)


def test_model_that_does_not_fit_the_patches(run, deck, tmp_path):
    run("train", deck / "cards.npy", "-o", tmp_path / "a", "--model", "vae", *QUICK)
    np.save(tmp_path / "two.npy", np.random.default_rng(0).random((12, 2, 20, 20)))
    run("encode", tmp_path / "a" / "model.safetensors", tmp_path / "two.npy", "-o", tmp_path / "z.csv", expect=2)
    assert not (tmp_path / "z.csv").exists()


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (MemoryError(), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), "not enough memory"),
        (OSError(28, "No space left on device", "/results"), "/results: No space left on device"),
        (RuntimeError("odd\nthings"), "this is a defect, please report it with what --debug shows (RuntimeError: odd)"),
    ],
)
def test_unexpected_problems(run, image, tmp_path, monkeypatch, problem, message):
    def fail(*_, **__):
        raise problem

    monkeypatch.setattr("napari_rvae.atoms.find_atoms", fail)
    assert message in run("find", image, "-o", tmp_path / "a.csv", expect=2)
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_where(image, tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise RuntimeError("odd")

    monkeypatch.setattr("napari_rvae.atoms.find_atoms", fail)
    for arguments in (
        ["find", str(image), "-o", str(tmp_path / "a.csv"), "--debug"],
        ["--debug", "find", str(image), "-o", "a.csv"],
    ):
        assert cli.main(arguments) == 2
        assert "Traceback" in capsys.readouterr().err


def test_stopped_from_the_keyboard(image, tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("napari_rvae.training.train", interrupted)
    assert cli.main(["run", str(image), "-o", str(tmp_path / "out")]) == 130
    assert "stopped; nothing was written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_results_are_checked_before_the_work(run, image, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_rvae.atoms.find_atoms", lambda *_, **__: pytest.fail("worked in vain"))
    (tmp_path / "file").write_text("")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "latent.csv").write_text("precious")
    assert "is a file" in run("run", image, "-o", tmp_path / "file", expect=2)
    assert "exists already" in run("run", image, "-o", tmp_path / "old", expect=2)
    assert (tmp_path / "old" / "latent.csv").read_text() == "precious"


# Progress -------------------------------------------------------------------------------------------------------------


def test_bar_on_a_terminal_only(monkeypatch, capsys):
    with cli.show_progress() as progress:
        assert progress is None
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with cli.show_progress() as progress:
        progress(0.5, "Epoch 3")
    shown = capsys.readouterr().err
    assert "Epoch 3" in shown
    assert "50%" in shown


def test_without_a_command(run):
    assert "Usage" in run()
    assert run("--version").startswith("napari-rvae ")
