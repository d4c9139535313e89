"""Training tells how far it is, learns, can be stopped and repeated, and refuses what it cannot learn from."""

import numpy as np
import pandas as pd
import pytest
import torch

from napari_rvae.errors import DeviceError, InputDataError, SettingsError, Stopped
from napari_rvae.latent import encode, reconstruct
from napari_rvae.models import Model, load_model
from napari_rvae.patches import extract_patches, patches_from_array
from napari_rvae.samples import cards
from napari_rvae.settings import PatchSettings, TrainSettings
from napari_rvae.training import TrainingReport, available_devices, choose_device, train, trained
from napari_rvae.training.finish import _representative
from napari_rvae.training.held_out import split
from napari_rvae.workflows import train_ensemble

TINY = {"hidden": 16, "device": "cpu", "threads": 1}


@pytest.fixture(scope="module")
def data():
    images, truth = cards(3, 120, 24)
    return patches_from_array(images), truth


@pytest.fixture(scope="module")
def scratch(data):
    """Reports and model of a short training."""
    return list(train(data[0], TrainSettings(start="scratch", epochs=6, early_stopping=False, **TINY)))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def extras(name, n=120):
    """What a member of the family needs besides patches."""
    labels = np.arange(n) % 4
    settings = {"classes": 4} if name.startswith(("j", "ss")) else {}
    options = {}
    if name.startswith("ss"):
        options["labels"] = np.where(np.arange(n) < n // 2, labels, -1)
    if name in ("cvae", "crvae"):
        options["condition"] = labels
    return settings, options


def test_an_encoder_may_learn_in_bfloat16(monkeypatch):
    images, truth = cards(1, 300, 24)
    patches, settings = patches_from_array(images), TrainSettings(epochs=12, early_stopping=False, **TINY)
    monkeypatch.setattr("napari_rvae.models.encoder.has_bfloat16", lambda device: True)
    seen, apply = set(), torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda *factors: seen.add(apply(*factors).dtype) or apply(*factors))
    model = trained(patches, settings)
    assert seen == {torch.bfloat16, torch.float32}  # learning, and inference
    table = encode(model, patches)
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    suit = truth["label"] == 1
    assert np.abs(np.exp(1j * (table["angle"] - truth["angle"]))[suit].mean()) > 0.99


@pytest.mark.parametrize("encoder", ["dense", "convolutional"])
def test_encoders_of_upright_patches_may_learn_in_bfloat16(monkeypatch, encoder):
    model = Model(TrainSettings(model="vae", encoder=encoder, hidden=16), 24, 1, 0.3)
    x = torch.randn(5, 1, 2 * model.space.terms, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = model.encode(x)
    monkeypatch.setattr("napari_rvae.models.encoder.has_bfloat16", lambda device: True)
    rounded = model.encode(x)
    for one, other in zip(exact, rounded, strict=True):
        assert other.dtype == torch.float32
        assert not torch.equal(one, other)
        torch.testing.assert_close(one, other.detach(), atol=0.02, rtol=0.02)
    with torch.no_grad():
        assert torch.equal(model.encode(x)[0], exact[0])  # inference is exact


def test_reports_follow_each_other(scratch):
    assert all(isinstance(report, TrainingReport) for report in scratch)
    assert [r.phase for r in scratch] == ["training"] * 6 + ["finishing", "done"]
    assert [r.epoch for r in scratch[:6]] == [1, 2, 3, 4, 5, 6]
    assert {r.epochs for r in scratch if r.phase in ("training", "done")} == {6}
    for report in scratch[:6]:
        assert set(report.terms) == {"data", "divergence", "supervised"}
        assert report.loss == pytest.approx(sum(report.terms.values()))
        assert report.rate > 0
        assert report.held_out is None
        assert report.message
    left = [report.time_left for report in scratch[:6]]
    assert left[-1] == 0 < left[0]
    model = scratch[-1].model
    assert model.recipe["epochs_done"] == 6
    assert (model.recipe["device"], model.recipe["threads"], model.recipe["patches"]) == ("cpu", 1, 120)
    assert model.recipe["training"]["seed"] == 0


def test_training_learns(scratch):
    losses = [report.loss for report in scratch if report.phase == "training"]
    assert losses[-1] < losses[0] - 10
    assert all(np.isfinite(losses))


def test_class_averages_are_reported_first(data):
    reports = list(train(data[0], TrainSettings(epochs=1, **TINY)))
    assert [r.phase for r in reports] == ["averages", "averages", "training", "finishing", "done"]
    assert reports[0].averages is None
    assert "kind" in reports[1].message
    assert reports[1].averages is reports[-1].averages
    assert len(reports[1].averages.table) == 120


def test_the_same_seed_gives_the_same_weights(data, scratch):
    settings = TrainSettings(start="scratch", epochs=6, early_stopping=False, **TINY)
    again = trained(data[0], settings)
    for (name, one), other in zip(again.state_dict().items(), scratch[-1].model.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    other = trained(data[0], settings.model_copy(update={"seed": 1, "epochs": 1}))
    first = trained(data[0], settings.model_copy(update={"epochs": 1}))
    assert float((weights(other) - weights(first)).abs().mean()) > 0.01


@pytest.mark.parametrize("start", ["scratch", "averages"])
def test_the_users_random_numbers_do_not_matter_and_stay_as_they_were(data, start):
    settings = TrainSettings(start=start, epochs=2, added_noise=0.1, **TINY)
    torch.manual_seed(1)
    one = weights(trained(data[0], settings))
    after = torch.randn(3)
    torch.manual_seed(1)
    assert torch.equal(torch.randn(3), after)
    reports = []
    for report in train(data[0], settings):
        torch.randn(5)  # whoever watches may draw some, too
        reports.append(report)
    assert torch.equal(one, weights(reports[-1].model))


def test_threads_are_given_back_even_when_nobody_listens_any_more(data):
    before = torch.get_num_threads()
    settings = TrainSettings(start="scratch", epochs=50, **{**TINY, "threads": before + 1})
    reports = train(data[0], settings)
    next(reports)
    assert torch.get_num_threads() == before + 1
    reports.close()
    assert torch.get_num_threads() == before


def test_stopping_keeps_what_was_learned(data):
    stopped = []
    reports = []
    for report in train(data[0], TrainSettings(start="scratch", epochs=500, **TINY), stop=lambda: bool(stopped)):
        reports.append(report)
        if report.epoch == 2:
            stopped.append(True)
    assert reports[-1].phase == "done"
    assert reports[-1].model.recipe["epochs_done"] <= 3
    table = encode(reports[-1].model, data[0].select(np.arange(5)))
    assert np.isfinite(table[["z1", "z2", "angle"]]).all(axis=None)


def test_stopping_while_averaging_leaves_nothing(data):
    with pytest.raises(Stopped, match="anything to keep"):
        list(train(data[0], TrainSettings(**TINY), stop=lambda: True))


def test_training_ends_when_nothing_improves():
    noise = np.random.default_rng(0).standard_normal((220, 24, 24))
    settings = TrainSettings(model="vae", epochs=400, **TINY)
    reports = list(train(patches_from_array(noise), settings))
    patient = trained(patches_from_array(noise), settings.model_copy(update={"patience": 30}))
    assert patient.recipe["epochs_done"] > reports[-1].epoch + 10
    epochs = [r for r in reports if r.phase == "training"]
    assert len(epochs) < 300
    held_out = [r.held_out for r in epochs if r.held_out is not None]
    assert np.isfinite(held_out).all()
    # the last quarter or so is learned from all patches: then none is held out any more
    assert all(r.held_out is None for r in epochs[len(held_out) :])
    assert len(epochs) / 2 < len(held_out) < len(epochs)
    assert reports[-1].model.recipe["epochs_done"] == len(epochs)


@pytest.mark.parametrize("pixel_size", [None, (1.0, 2.0), (2.0, 1.0)])
def test_held_out_patches_lie_apart_from_those_learned_from(pixel_size):
    y, x = np.mgrid[20:380:18, 20:380:18]
    atoms = pd.DataFrame({"y": y.ravel(), "x": x.ravel()})
    image = np.random.default_rng(0).random((400, 400))
    patches = extract_patches(image, atoms, PatchSettings(size=16), pixel_size=pixel_size)
    held, kept = split(patches, torch.Generator().manual_seed(0))
    place = patches.centers / patches.step  # in pixels of the patches, which are square
    apart = np.linalg.norm(place[held.numpy()][:, None] - place[kept.numpy()], axis=-1)
    assert 0.05 < len(held) / len(patches) < 0.3
    assert apart.min() >= patches.data.shape[-1] / 2


def test_patches_as_large_as_their_image_can_be_held_out():
    y, x = np.mgrid[2:62:4, 2:62:4]
    atoms = pd.DataFrame({"y": y.ravel(), "x": x.ravel()})
    patches = extract_patches(np.random.default_rng(0).random((64, 64)), atoms, PatchSettings(size=60, working_size=16))
    held, _ = split(patches, torch.Generator().manual_seed(0))
    assert 0 < len(held) < len(patches) / 2


@pytest.fixture(scope="module")
def few():
    return patches_from_array(cards(1, 60, 16)[0])


@pytest.mark.parametrize(
    ("name", "members"),
    [
        *((name, 1) for name in ("ae", "vae", "shiftvae", "rvae", "jvae", "jrvae", "cvae", "crvae", "ssvae", "ssrvae")),
        *((name, 2) for name in ("rvae", "jrvae", "cvae", "ssvae")),
    ],
)
def test_every_model_trains_is_kept_encodes_and_reconstructs(few, name, members, tmp_path):
    more, options = extras(name, len(few))
    settings = TrainSettings(model=name, epochs=2, latent=3, members=members, **more, **TINY)
    model, _ = train_ensemble(few, settings, **options)
    condition = options.get("condition")
    table = encode(model, few, condition=condition)
    assert len(table) == len(few)
    expected = {"z1", "z2", "z3", "z1_error", "reconstruction_error"}
    expected |= {"angle", "angle_error", "symmetry"} if name.endswith("rvae") else set()
    expected |= {"dy", "dx", "dy_error", "dx_error"} if name.endswith("rvae") or name == "shiftvae" else set()
    expected |= {"class", "class_probability"} if more else set()
    expected |= {"z1_dispersion"} if members > 1 else set()
    columns = set(table)
    assert expected <= columns
    assert not {"angle", "dy", "class", "scale", "strain_a"} & (columns - expected)
    assert np.isfinite(table).all(axis=None)
    model.save(tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    pd.testing.assert_frame_equal(encode(again, few, condition=condition), table)
    understood = reconstruct(again, few, table, condition)
    assert understood.shape == few.data.shape
    assert np.isfinite(understood).all()


@pytest.mark.parametrize("size", [16, 21])
def test_a_convolutional_encoder_tells_kinds_apart(size):
    images, truth = cards(1, 200, size)
    patches = patches_from_array(images)
    settings = TrainSettings(model="vae", encoder="convolutional", epochs=25, early_stopping=False, **TINY)
    model = trained(patches, settings)
    assert any(isinstance(layer, torch.nn.Conv2d) for layer in model.encoder.modules())
    z = model.encode(model.harmonics(torch.as_tensor(patches.data)))[0].detach()  # what the network alone says
    apart = torch.cdist(z, z).fill_diagonal_(torch.inf)
    assert (truth["label"].to_numpy()[apart.argmin(1)] == truth["label"]).mean() > 0.9


@pytest.mark.parametrize("more", [{"decoder": "coordinate"}, {"model": "jrvae", "classes": 2}, {"skip": True}])
def test_patches_of_two_channels(data, more, tmp_path):
    """The second channel, the negative of the first, comes back as such; by the published decoder, too."""
    images = data[0].data
    patches = patches_from_array(np.concatenate([images, 2 - images], 1))
    settings = TrainSettings(epochs=12, early_stopping=False, **more, **{**TINY, "hidden": 32})
    model = trained(patches, settings)
    model.save(tmp_path / "two.safetensors")
    found = reconstruct(load_model(tmp_path / "two.safetensors"), patches, encode(model, patches))
    assert found.shape == patches.data.shape
    inner = (slice(None), slice(6, -6), slice(6, -6))
    assert np.corrcoef(found[:, 0][inner].ravel(), images[:, 0][inner].ravel())[0, 1] > 0.6
    assert np.corrcoef(found[:, 0][inner].ravel(), found[:, 1][inner].ravel())[0, 1] < -0.9


@pytest.mark.parametrize("name", ["jvae", "jrvae"])
def test_classes_of_windows_over_an_image(name):
    """Stripes and dots, no atoms: overlapping windows on a grid."""
    y, x = np.mgrid[:96, :192]
    stripes, dots = np.sin(x * np.pi / 4), np.sin(x * np.pi / 4) * np.sin(y * np.pi / 4)
    image = np.where(x < 96, stripes, dots) + 0.1 * np.random.default_rng(0).standard_normal(x.shape)
    rows, columns = np.mgrid[12:85:8, 12:181:8]
    windows = pd.DataFrame({"y": rows.ravel(), "x": columns.ravel()})
    patches = extract_patches(image, windows, PatchSettings(size=24))
    model = trained(patches, TrainSettings(model=name, classes=2, epochs=15, early_stopping=False, **TINY))
    found = encode(model, patches)["class"].to_numpy()
    clear = (windows["x"] < 80) | (windows["x"] > 112)
    right = (found == (windows["x"] > 96))[clear].mean()
    assert max(right, 1 - right) > 0.9


@pytest.mark.parametrize(
    ("settings", "options", "error", "words"),
    [
        ({"model": "jrvae"}, {}, SettingsError, "number of classes"),
        ({"model": "ssvae"}, {}, SettingsError, "needs labels"),
        ({"decoder": "coordinate", "skip": True}, {}, SettingsError, "no residual connections"),
        ({"encoder": "dense"}, {}, SettingsError, "leave encoder at auto"),
        ({"model": "ssvae", "classes": 2}, {}, SettingsError, "needs labels"),
        ({"model": "rvae"}, {"labels": np.zeros(120, int)}, SettingsError, "takes no labels"),
        ({"model": "cvae"}, {}, SettingsError, "needs a condition"),
        ({"model": "rvae"}, {"condition": np.zeros(120)}, SettingsError, "takes no condition"),
        ({"model": "ssvae", "classes": 2}, {"labels": np.zeros(7, int)}, InputDataError, "120 integers"),
        ({"model": "ssvae", "classes": 2}, {"labels": np.zeros(120)}, InputDataError, "are a quantity"),
        ({"model": "ssvae", "classes": 2}, {"labels": np.full(120, 2)}, InputDataError, "between -1"),
        ({"model": "ssvae", "classes": 2}, {"labels": np.full(120, -2)}, InputDataError, "between -1"),
        ({"model": "ssvae", "classes": 2}, {"labels": np.full(120, -1)}, InputDataError, "All labels are -1"),
        ({"model": "ssvae", "classes": 2}, {"labels": np.ones(120, int)}, InputDataError, "of one class"),
        ({"model": "jrvae", "classes": 1}, {}, SettingsError, "no choice"),
        ({"model": "cvae"}, {"condition": np.zeros(7)}, InputDataError, "120 classes"),
        ({"model": "cvae"}, {"condition": np.float64(1)}, InputDataError, "120 classes"),
        ({"model": "cvae"}, {"condition": np.zeros((120, 0))}, InputDataError, "120 classes"),
        ({"model": "cvae"}, {"condition": np.full(120, np.inf)}, InputDataError, "no finite number"),
        ({"model": "cvae"}, {"condition": np.full(120, np.nan)}, InputDataError, "no value for 120"),
        ({"device": "cuda:9"}, {}, DeviceError, "no device cuda:9"),
    ],
)
def test_what_does_not_fit_is_said_at_once(data, settings, options, error, words):
    with pytest.raises(error, match=words):
        next(train(data[0], TrainSettings(**{**TINY, **settings}), **options))


def test_without_a_number_of_classes_they_are_those_that_are_labelled(data):
    labels = np.where(np.arange(120) < 60, np.arange(120) % 3, -1)
    model = trained(data[0], TrainSettings(model="ssvae", epochs=1, **TINY), labels=labels)
    assert model.classes == model.settings.classes == 3


def test_a_patch_labelled_twice_differently_is_named(data):
    patches = data[0].select(np.r_[np.arange(60), 5])
    labels = np.r_[np.arange(60) % 2, 0]
    with pytest.raises(InputDataError, match=r"Patches \d+ and \d+ are the same, but are labelled 1 and 0"):
        next(train(patches, TrainSettings(**{**TINY, "model": "ssvae", "classes": 2}), labels=labels))


def test_classes_learn_their_share_of_the_patches(data):
    images, truth = cards(1, 400, 24)
    suit = truth["label"].to_numpy()
    rows = np.concatenate([np.flatnonzero(suit == 0)[:90], np.flatnonzero(suit == 1)[:30]])
    settings = TrainSettings(model="jrvae", classes=2, epochs=20, early_stopping=False, **TINY)
    *_, last = train(patches_from_array(images[rows]), settings)
    assert last.model.class_share.sort().values.numpy() == pytest.approx([0.25, 0.75], abs=0.1)
    annealed = settings.model_copy(update={"class_capacity": 0.6})
    *_, last = train(patches_from_array(images[rows]), annealed)
    assert last.model.class_share.tolist() == [0.5, 0.5]  # that course asks for classes that are equally likely


def test_more_classes_than_patches(data):
    with pytest.raises(SettingsError, match="50 classes for 20 patches"):
        next(train(data[0].select(np.arange(20)), TrainSettings(model="jrvae", classes=50, **TINY)))


def test_too_few_or_empty_patches(data):
    with pytest.raises(InputDataError, match="too few"):
        next(train(data[0].select(np.arange(9)), TrainSettings(**TINY)))
    images = data[0].data
    for start in ("averages", "scratch"):
        for wrong, words in (
            (np.ones((30, 24, 24)), "All patches are the same, constant image"),
            (np.concatenate([images, np.ones_like(images)], 1), "Channel 2 of 2 is constant in all patches"),
            (1e37 * images, "too large to be squared"),
        ):
            with pytest.raises(InputDataError, match=words):
                list(train(patches_from_array(wrong), TrainSettings(start=start, **TINY)))


@pytest.mark.parametrize("name", ["vae", "rvae"])
def test_copies_of_one_patch_are_learned(data, name):
    """Nothing is left over, which is no reason for a loss without end."""
    patches = patches_from_array(np.repeat(data[0].data[:1], 220, 0))
    *_, last = train(patches, TrainSettings(model=name, epochs=30, **TINY))
    assert last.notes == ()
    assert np.isfinite([(loss, held_out or 0.0) for _, loss, held_out in last.losses]).all()
    table = encode(last.model, patches)
    assert np.isfinite(table).all(axis=None)
    assert table[["z1", "z2"]].std().max() < 0.01


@pytest.mark.parametrize("normalization", ["dataset", "patch"])
def test_intensities_have_no_unit(few, normalization):
    """Electron counts or volts, 1e12 or 1e-12 of them: the same, to the last digit where only the exponent differs."""
    tables = []
    for unit in (1.0, 2.0**40, 2.0**-40):
        patches = patches_from_array(few.data * np.float32(unit), PatchSettings(normalization=normalization))
        tables.append(encode(trained(patches, TrainSettings(epochs=2, **TINY)), patches).drop(columns="patch_mean"))
    for other in tables[1:]:
        pd.testing.assert_frame_equal(other, tables[0], check_exact=True)


@pytest.mark.parametrize(("size", "latent"), [(8, 1), (8, 64), (12, 5), (16, 10)])
@pytest.mark.parametrize("name", ["vae", "rvae"])
def test_small_patches_with_any_number_of_latents(name, size, latent):
    patches = patches_from_array(cards(1, 12, size)[0])
    model = trained(patches, TrainSettings(model=name, latent=latent, epochs=1, **TINY))
    table = encode(model, patches)
    assert np.isfinite(table).all(axis=None)
    assert f"z{latent}" in table
    assert f"z{latent + 1}" not in table


def test_labels_are_learned():
    images, truth = cards(1, 160, 24)
    labels = np.where(np.arange(160) < 80, truth["label"], -1)
    settings = TrainSettings(model="ssvae", classes=4, epochs=15, **TINY)
    table = encode(trained(patches_from_array(images), settings, labels=labels), patches_from_array(images))
    assert (table["class"] == truth["label"])[80:].mean() > 0.9
    assert table["class_probability"].between(0.25, 1 + 1e-6).all()


def test_devices():
    devices = available_devices()
    names = [device.name for device in devices]
    assert names[-1] == "cpu"
    assert "thread" in devices[-1].label
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") == names[0]
    with pytest.raises(DeviceError, match="auto or"):
        choose_device("cuda:99")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_cuda_trains_like_the_processor(data):
    settings = TrainSettings(start="scratch", epochs=3, **{**TINY, "device": "cuda"})
    model = trained(data[0], settings)
    assert model.noise.device.type == "cuda"
    assert np.isfinite(encode(model, data[0])).all(axis=None)


def test_nothing_is_written_anywhere(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = trained(data[0], TrainSettings(start="scratch", epochs=2, **TINY))
    encode(model, data[0])
    assert list(tmp_path.iterdir()) == []


def test_training_starts_from_principal_components():
    from napari_rvae.training.loop import Trainer

    rng = np.random.default_rng(0)
    shapes, scores = rng.normal(size=(2, 24, 24)), rng.normal(size=(300, 2)) * [3, 1]
    scores[:6, 1] = 9  # rare and strong
    patches = patches_from_array(np.tensordot(scores, shapes, 1) + 0.3 * rng.normal(size=(300, 24, 24)))
    trainer = Trainer(Model(TrainSettings(model="vae", **TINY), 24, 1, 0.3), patches)
    with torch.no_grad():
        z = trainer.model.encode(trainer.harmonics)[0]
        left = trainer.model.decode(z)[:, 0] - trainer.harmonics
    assert left.square().sum() < 0.2 * (trainer.harmonics - trainer.harmonics.mean(0)).square().sum()
    assert abs(np.corrcoef(z[:, 1], scores[:, 1])[0, 1]) > 0.95


def test_of_very_many_patches_some_of_every_kind_tell_frames():
    kind = np.zeros(30_000, np.int64)
    kind[[5, 17_003, 29_998]] = 1
    rows = _representative(kind)
    assert len(rows) < 11_000
    assert {5, 17_003, 29_998} <= set(rows)
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(_representative(kind[:300]), np.arange(300))


def test_motifs_are_not_called_symmetric_because_their_mean_is():
    """Twelve kinds of three spots, turned: which is known, and no two look the same at any angle."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:24, :24] - 11.5
    spots = rng.uniform(3, 7, (12, 3)) * np.exp(2j * np.pi * rng.uniform(size=(12, 3)))
    kind, turn = rng.integers(12, size=800), rng.uniform(0, 2 * np.pi, (800, 1))
    place = (spots[kind] * np.exp(1j * turn))[..., None, None]
    data = np.exp(-((x - place.real) ** 2 + (y - place.imag) ** 2) / 4).sum(1) + 0.6 * rng.standard_normal(
        (800, 24, 24)
    )
    patches = patches_from_array(data.astype(np.float32))
    settings = TrainSettings(model="crvae", invariance=("rotation",), epochs=8, early_stopping=False, hidden=32)
    *_, last = train(patches, settings, condition=kind)
    assert last.model.kind_symmetry.tolist() == [1] * len(last.model.kind_symmetry)
