"""The learned finder: what it finds, how it is kept, what it refuses."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from napari_rvae import find_atoms, load_finder, train_finder
from napari_rvae.atoms import prepare, refine_atoms
from napari_rvae.errors import InputDataError, ModelFileError, Stopped
from napari_rvae.models.finder import FinderNet, LearnedFinder, to_normalized
from napari_rvae.samples.varied import varied_scene
from napari_rvae.settings import FinderSettings, FindSettings
from napari_rvae.training.finder import Example, examples_of
from tests.atoms.conftest import draw, f1, lattice

LEARNED = FindSettings(search="learned")
QUICK = FinderSettings(steps=60, batch_size=6, threads=1)


def honeycomb(seed, turn=0.0, bond=11.0, dose=5.0, side=208):
    """Counts of a turned honeycomb on uneven ground, and its atoms."""
    a = bond * np.sqrt(3) * np.array([np.sin(turn), np.cos(turn)])
    b = bond * np.sqrt(3) * np.array([np.sin(turn + np.pi / 3), np.cos(turn + np.pi / 3)])
    true, _ = lattice((side, side), a, b, ((0, 0), (1 / 3, 1 / 3)))
    ground = 2 + np.cos(np.arange(side) / 40)[:, None]
    return np.random.default_rng(seed).poisson(dose * (ground + draw((side, side), true, sigma=0.3 * bond))), true


@pytest.fixture(scope="module")
def reports():
    return list(train_finder([Example(*honeycomb(0))], QUICK))


@pytest.fixture(scope="module")
def finder(reports):
    return reports[-1].finder


def test_the_course_of_a_training_is_told(reports):
    assert [report.step for report in reports] == sorted(report.step for report in reports)
    assert reports[-1].step == reports[-1].steps == 60
    assert reports[-1].held_out < 0.7 * reports[0].held_out
    assert reports[-1].score > 0.95
    assert all(report.finder is None for report in reports[:-1])


@pytest.mark.parametrize("off", [-0.8, 0.8])
def test_a_perfect_score_is_one(monkeypatch, off):
    image, true = honeycomb(0, turn=0.3)

    def all_of_them(_, pixels):
        places = to_normalized(true, image.shape, pixels.shape)
        places[:, 0] += off * np.sign(0.9 * len(pixels) - places[:, 0])  # across the borders of what is held out
        return places, np.full(len(true), 90.0)

    monkeypatch.setattr(LearnedFinder, "normalized_candidates", all_of_them)
    (only,) = train_finder([Example(image, true)], QUICK, keep=lambda: True)
    assert only.score == 1


def test_other_images_of_the_specimen_are_searched(finder):
    image, true = honeycomb(5, turn=0.5, bond=14.0, side=240)  # turned, and at another magnification
    atoms = find_atoms(image, LEARNED, finder=finder)
    assert f1(atoms[["y", "x"]].to_numpy(), true, 4, image.shape) > 0.95
    assert atoms["error"].between(0.05, 4).all()
    assert atoms.attrs["napari_rvae"]["threshold"] < 10, "in standard deviations of the noise"


def test_before_anything_is_learned_next_to_nothing_is_an_atom():
    """Few lone atoms on much background were never told from it where all was as likely as not at first."""
    noise = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.sigmoid(FinderNet().eval()(noise)).mean() < 0.2


def test_the_threshold_is_a_certainty(finder):
    image, _ = honeycomb(6)
    few, many = (find_atoms(image, LEARNED.model_copy(update={"threshold": t}), finder=finder) for t in (95, 5))
    assert len(few) < len(many)
    assert prepare(image, LEARNED, finder).heights.max() <= 100


def test_a_saved_finder_finds_the_same(finder, tmp_path):
    image, _ = honeycomb(7)
    finder.save(tmp_path / "mine.safetensors")
    again = load_finder(tmp_path / "mine.safetensors")
    assert (again.certainty, again.error) == (finder.certainty, finder.error)
    assert again.recipe["settings"]["steps"] == 60
    one, two = (find_atoms(image, LEARNED, finder=each) for each in (finder, again))
    np.testing.assert_array_equal(one[["y", "x"]], two[["y", "x"]])


def test_damaged_finders_are_refused(finder, tmp_path):
    path = tmp_path / "mine.safetensors"
    finder.save(path)
    whole = path.read_bytes()
    for broken in (whole[:500], whole[: len(whole) // 2], whole.replace(b"certainty", b"certxinty"), b"", b"\0" * 99):
        path.write_bytes(broken)
        with pytest.raises(ModelFileError):
            load_finder(path)
    path.write_bytes(whole.replace(b'\\"format\\": 1', b'\\"format\\": 9'))
    with pytest.raises(ModelFileError, match="newer"):
        load_finder(path)
    replace(finder, certainty=10**400).save(path)
    with pytest.raises(ModelFileError, match="damaged"):
        load_finder(path)
    path.write_bytes(whole + b"\0" * 4_000_000)
    with pytest.raises(ModelFileError, match="damaged"):
        load_finder(path)
    with pytest.raises(ModelFileError, match="There is no finder"):
        load_finder(tmp_path / "nowhere.safetensors")


def test_points_are_known_in_a_region_only():
    image, true = honeycomb(0)
    region = np.zeros(image.shape, bool)
    region[:, :104] = True
    example = Example(image, true[true[:, 1] < 104], region)
    *_, last = train_finder([example], QUICK.model_copy(update={"steps": 40}))
    found = find_atoms(image, LEARNED, finder=last.finder)
    assert (found["x"] > 110).sum() > 0.8 * (true[:, 1] > 110).sum(), "nothing was said about the other half"


def test_training_can_be_stopped_and_cut_short():
    example = Example(*honeycomb(0))
    with pytest.raises(Stopped):
        list(train_finder([example], QUICK, stop=lambda: True))
    with pytest.raises(Stopped):
        list(train_finder([], FinderSettings(specimen="graphene", images=100), stop=lambda: True))
    asked = []
    with pytest.raises(Stopped):  # in the middle of a step: nothing is to be kept
        list(train_finder([example], QUICK, stop=lambda: bool(asked), keep=lambda: asked.append(1) or True))
    (only,) = train_finder([example], QUICK, keep=lambda: True)
    assert only.step == 1
    assert only.finder is not None


def test_too_little_is_refused(finder):
    image, true = honeycomb(0)
    with pytest.raises(InputDataError, match="at least 20"):
        list(train_finder([Example(image, true[:5])], QUICK))
    with pytest.raises(InputDataError, match="at least 20"):
        list(train_finder([], QUICK))
    with pytest.raises(InputDataError, match="needs a finder"):
        find_atoms(image, LEARNED)
    with pytest.raises(InputDataError, match="give the spacing"):
        find_atoms(image, LEARNED.model_copy(update={"spacing": 1.5}), finder=finder)


def test_points_moved_by_hand_need_no_finder(finder):
    image, _ = honeycomb(8)
    atoms = find_atoms(image, LEARNED, finder=finder)
    assert len(refine_atoms(image, atoms, atoms["atom_id"][:3], LEARNED)) == len(atoms)


@pytest.mark.parametrize("specimen", ["graphene", "interface"])
def test_simulated_scenes_differ_and_come_back(specimen):
    one, two, again = (varied_scene(specimen, seed) for seed in (0, 1, 0))
    np.testing.assert_array_equal(one.image, again.image)
    assert one.pixel_size != two.pixel_size
    assert json.dumps(one.metadata)


@pytest.mark.parametrize("search", ["maxima", "dog", "log"])
def test_plain_filters_find_what_is_plain(search):
    image, true = honeycomb(1, dose=60.0)
    atoms = find_atoms(image, FindSettings(search=search))
    assert f1(atoms[["y", "x"]].to_numpy(), true, 3, image.shape) > 0.9


def test_of_a_stack_the_frames_are_learned_from_whose_atoms_are_known():
    atoms = pd.DataFrame({"frame": [0, 0, 1, 2, 2], "y": [1.0, 5, 3, 2, 6], "x": [1.0, 5, 3, 2, 6]})
    region = np.zeros((8, 8), bool)
    region[:6, :6] = True
    stack = np.arange(3 * 64.0).reshape(3, 8, 8)
    assert [len(one.positions) for one in examples_of(stack, atoms)] == [2, 2]
    (first,) = examples_of(stack, atoms, region)  # in the last frame, one of two lies outside
    np.testing.assert_array_equal(first.image, stack[0])
    np.testing.assert_array_equal(first.positions, [[1, 1], [5, 5]])
    _, last = examples_of(stack, atoms, np.stack([region, ~region, ~(region & False)]))
    assert len(last.positions) == 2
    assert last.region.all()
