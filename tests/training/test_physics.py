"""Terms of one's own in the loss: they shape what is learned, are shown and recorded, and fail with a clear word."""

from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch

from napari_rvae.errors import SettingsError
from napari_rvae.latent import encode
from napari_rvae.patches import Patches, patches_from_array
from napari_rvae.settings import PatchSettings, TrainSettings
from napari_rvae.training import physics, register_physics, train
from napari_rvae.training.physics import _neighbors, smooth, symmetric

QUICK = {"model": "vae", "epochs": 60, "hidden": 16, "latent": 1, "early_stopping": False, "threads": 1}


@pytest.fixture(autouse=True)
def terms(monkeypatch):
    """Let no test leave a term behind."""
    monkeypatch.setattr(physics, "_TERMS", dict(physics._TERMS))


@pytest.fixture(scope="module")
def blobs():
    """Two columns, the second weaker: symmetric but for noise and that."""
    y, x = np.mgrid[:16, :16] - 7.5
    rng = np.random.default_rng(0)
    weak = rng.uniform(0.3, 1, 120)[:, None, None]
    spot = np.exp(-((x - 3) ** 2 + y**2) / 4)
    return (spot[None, :, ::-1] + weak * spot + 0.05 * rng.standard_normal((120, 16, 16))).astype(np.float32)


def trained(data, name, **more):
    *_, last = train(patches_from_array(data), TrainSettings(physics=name, **QUICK | more))
    return last.model


def lopsided(model):
    with torch.no_grad():
        image = model.space.synthesise(model.decode(torch.zeros(1, 1))[:, 0])
    return float((image - image.flip(-1, -2)).square().sum() / image.square().sum())


def test_a_known_symmetry_is_learned_to_be_one(blobs):
    free, bound = trained(blobs, ""), trained(blobs, "symmetry-2", physics_weight=10)
    assert lopsided(bound) < 0.5 * lopsided(free)
    assert bound.recipe["physics"] == "napari_rvae.training.physics:symmetric"
    assert "physics" not in free.recipe


def test_symmetric_patches_cost_nothing_and_others_do():
    y, x = np.mgrid[:32, :32] - 15.5
    ring = torch.as_tensor(np.exp(-((np.hypot(x, y) - 6) ** 2) / 4), dtype=torch.float32)
    spot = torch.as_tensor(np.exp(-((x - 6) ** 2 + y**2) / 4), dtype=torch.float32)
    for fold in (2, 3, 4, 6):
        costs = symmetric(torch.stack([ring, spot])[:, None], torch.zeros(2, 1), fold)
        assert costs[0] < 0.02 * costs[1]
        assert costs[1] == pytest.approx(float(spot.square().sum()), rel=0.1)


def test_what_varies_slowly_is_preferred():
    """Patches along a chain: one column moves slowly from patch to patch, the brightness of all changes at random."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:16, :16] - 7.5
    moved, bright = 1.2 * np.sin(np.arange(200) / 20), 1 + 0.4 * rng.standard_normal(200)
    spots = np.exp(-((x - 3 - moved[:, None, None]) ** 2 + y**2) / 6) + np.exp(-((x + 3) ** 2 + y**2) / 6)
    data = bright[:, None, None] * spots + 0.1 * rng.standard_normal((200, 16, 16))
    centers = np.stack([np.zeros(200), 10.0 * np.arange(1, 201)], 1)
    data, frame = data[:, None].astype(np.float32), np.zeros(200, np.int64)
    patches = Patches(data, np.arange(200), centers, frame, np.zeros(200, bool), (1.0, 1.0), PatchSettings())
    slow, found = [], []
    for weight in (0.0, 100.0):
        *_, last = train(patches, TrainSettings(physics="smooth", physics_weight=weight, **QUICK))
        found.append(abs(np.corrcoef(encode(last.model, patches)["z1"], moved)[0, 1]))
        with torch.no_grad():
            z = last.model.encode(last.model.harmonics(torch.as_tensor(data)))[0][:, 0].numpy()
        slow.append(abs(np.corrcoef(z, moved)[0, 1]))
    assert slow[0] < 0.6 < 0.9 < slow[1], slow
    assert found[0] < 0.5 < 0.7 < found[1], found  # fitted to every patch by itself, they follow
    with pytest.raises(SettingsError, match="positions of atoms"):
        smooth(torch.zeros(2, 1, 8, 8), torch.zeros(2, 1), torch.zeros(2, 0, 1))


def test_neighbours_are_of_the_same_frame():
    frame = np.repeat([0, 1], [4, 12])
    centers = np.stack([np.zeros(16), np.arange(16)], 1)
    data = np.zeros((16, 1, 8, 8), np.float32)
    near = _neighbors(Patches(data, np.arange(16), centers, frame, np.zeros(16, bool), (1.0, 1.0), PatchSettings()))
    assert (frame[near] == frame[:, None]).all()
    assert set(near[0]) == {0, 1, 2, 3}, "itself, where there are too few"


def test_the_term_is_one_more_term_of_the_loss(blobs):
    register_physics("small", lambda patches, latents: 3 * (1 + 0 * latents.sum()))
    reports = list(
        train(patches_from_array(blobs), TrainSettings(physics="small", physics_weight=2, **QUICK | {"epochs": 3}))
    )
    shown = [one for one in reports if one.loss is not None]
    assert all(one.terms["physics"] == pytest.approx(6) for one in shown)
    assert all(one.loss == pytest.approx(sum(one.terms.values())) for one in shown)


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (lambda patches, latents: patches.missing, "bad failed: AttributeError"),
        (lambda patches, latents: 1 / 0, "bad failed: ZeroDivisionError"),
        (lambda patches, latents: patches.square(), r"shape \(.*\), one penalty per patch"),
        (lambda patches, latents: 1.0, "not float"),
        (lambda patches, latents: latents.detach().sum(1), "nothing can be learned"),
        (lambda patches, latents: latents.sum(1) * float("nan"), "no finite number"),
        (lambda: 0, "bad failed: TypeError"),
    ],
)
def test_a_term_that_fails_is_named_with_its_reason(blobs, term, message):
    register_physics("bad", term)
    with pytest.raises(SettingsError, match=message):
        trained(blobs, "bad")


def test_terms_of_other_packages_are_found(blobs, monkeypatch):
    offered = [
        EntryPoint("flat", "napari_rvae.training.physics:smooth", physics.GROUP),
        EntryPoint("gone", "no_such_module:term", physics.GROUP),
    ]
    monkeypatch.setattr(physics, "entry_points", lambda group: offered if group == physics.GROUP else [])
    assert {"flat", "gone", "smooth", "symmetry-4"} <= set(physics.physics_terms())
    assert physics.physics_term("flat") == (smooth, "napari_rvae.training.physics:smooth")
    with pytest.raises(SettingsError, match=r"cannot be loaded from no_such_module:term: ModuleNotFoundError"):
        trained(blobs, "gone")
    with pytest.raises(SettingsError, match=r"no term called sooth: choose from flat, gone, smooth"):
        trained(blobs, "sooth")
