"""A model file gives the model back, or says in one sentence why not; it never runs code and never eats the memory."""

import json
import struct
import time

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_rvae.errors import ModelFileError, OutputError
from napari_rvae.models import Model, load_model


@pytest.fixture(scope="module")
def model(make_model):
    made = make_model("jrvae", classes=2)
    made.recipe = {"step": [0.5, 0.5], "normalization": "dataset", "note": "ä"}
    templates = made.kind_template.expand(2, -1, -1) + 1
    made.set_frames(templates, torch.tensor([0.1, 0.2]), torch.ones(2, 5), torch.tensor([1, 3]))
    return made


@pytest.fixture(scope="module")
def content(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    model.save(path)
    return path.read_bytes()


def header_of(content):
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def file_of(outer, rest):
    text = json.dumps(outer).encode()
    return struct.pack("<Q", len(text)) + text + rest


def changed(content, **values):
    """The same file with other entries in its description."""
    outer, rest = header_of(content)
    inner = json.loads(outer["__metadata__"]["napari_rvae"])
    outer["__metadata__"]["napari_rvae"] = json.dumps({**inner, **values})
    return file_of(outer, rest)


def test_what_is_loaded_says_the_same(model, content, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    loaded = load_model(path)
    assert isinstance(loaded, Model)
    assert loaded.settings == model.settings
    assert loaded.recipe == model.recipe
    assert not loaded.training
    assert set(loaded.state_dict()) == set(model.state_dict())
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    x = torch.randn(5, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        h = model.harmonics(x)
        for one, other in zip(model.encode(h), loaded.encode(loaded.harmonics(x)), strict=True):
            assert torch.equal(one, other)
        assert torch.equal(model.decode(torch.ones(1, 2)), loaded.decode(torch.ones(1, 2)))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vae", {"encoder": "convolutional", "size": 21, "channels": 2}),
        ("jvae", {"encoder": "dense", "classes": 3, "skip": True}),
        ("rvae", {"decoder": "coordinate", "channels": 2}),
        ("crvae", {"conditions": 3, "invariance": "rotation,translation,scale,strain", "latent": 5}),
        ("shiftvae", {"latent": 64, "size": 9}),
        ("ssvae", {"encoder": "convolutional", "classes": 2, "decoder": "coordinate"}),
    ],
)
def test_every_model_is_loaded_as_it_was(make_model, tmp_path, name, options):
    model = make_model(name, **options)
    model.save(tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    assert loaded.settings == model.settings
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def test_saving_again_gives_the_same_file(content, tmp_path):
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    first.write_bytes(content)
    load_model(first).save(second)
    assert header_of(second.read_bytes())[1] == header_of(content)[1]
    assert sorted(tmp_path.iterdir()) == [first, second]


def test_a_file_that_cannot_be_written_is_said(model, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        model.save(tmp_path / "file" / "model.safetensors")


def refused(tmp_path, content, words=None):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    start = time.perf_counter()
    with pytest.raises(ModelFileError, match=words) as error:
        load_model(path)
    assert time.perf_counter() - start < 5
    assert "\n" not in str(error.value)


def test_missing_files_and_folders(tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(ModelFileError, match="no model file"):
            load_model(path)


@pytest.mark.parametrize("part", [0, 4, 8, 20, 0.2, 0.5, 0.9, -1])
def test_truncated_files(content, tmp_path, part):
    refused(tmp_path, content[: int(part * len(content)) if isinstance(part, float) else part])


def test_foreign_files(tmp_path):
    import pickle

    from safetensors.torch import save

    refused(tmp_path, save({"weights": torch.zeros(3)}), "not a model file")
    refused(tmp_path, pickle.dumps({"weights": [1, 2]}), "not a model file")
    refused(tmp_path, b"PK\x03\x04" + bytes(100), "not a model file")
    refused(tmp_path, struct.pack("<Q", 2**62) + b"{}", "not a model file")
    refused(tmp_path, struct.pack("<Q", 100_000) + b"[" * 100_000, "not a model file")


def test_files_of_a_newer_version(content, tmp_path):
    refused(tmp_path, changed(content, format=2), "newer")


def test_settings_that_an_older_version_did_not_know_take_their_defaults(content, tmp_path):
    settings = json.loads(header_of(content)[0]["__metadata__"]["napari_rvae"])["settings"]
    older = {
        name: value for name, value in settings.items() if name not in ("skip", "angle_prior", "decoder", "encoder")
    }
    (tmp_path / "older.safetensors").write_bytes(changed(content, settings=older))
    assert load_model(tmp_path / "older.safetensors").settings.model_dump(mode="json") == settings


@pytest.mark.parametrize(
    "values",
    [
        {"format": 0},
        {"format": "1"},
        {"size": 40},
        {"size": 10**9},
        {"size": True},
        {"channels": 2},
        {"channels": 256},
        {"conditions": 10_000},
        {"k_max": 0.35},
        {"k_max": float("nan")},
        {"k_max": [1]},
        {"recipe": []},
        {"recipe": {"step": [0, 1]}},
        {"recipe": {"step": "ab"}},
        {"recipe": {"step": 3}},
        {"recipe": {"losses": [[1, 2.0]]}},
        {"recipe": {"losses": [[1, 2.0, "a"]]}},
        {"recipe": {"normalization": "exec"}},
        {"settings": {"model": "gan"}},
        {"settings": {"model": "rvae", "hidden": 4096, "latent": 64}},
        {"settings": None},
    ],
)
def test_descriptions_that_do_not_fit(content, tmp_path, values):
    refused(tmp_path, changed(content, **values))


def test_tensors_that_do_not_fit(model, content, tmp_path):
    from safetensors.torch import load, save

    meta = {"napari_rvae": header_of(content)[0]["__metadata__"]["napari_rvae"]}
    tensors = load(content)
    for name, value in {
        "noise": torch.full_like(tensors["noise"], float("nan")),
        "mean": tensors["mean"].double(),
        "spread": torch.ones(3),
        "kind_angle": torch.zeros(5),
        "kind_template": torch.zeros(2, 1, 7),
        "finder_images": torch.zeros(2, 1, 9, 9),
    }.items():
        refused(tmp_path, save({**tensors, name: value}, meta))
    refused(tmp_path, save({**tensors, "more": torch.zeros(1)}, meta))
    refused(tmp_path, save({k: v for k, v in tensors.items() if k != "noise"}, meta))


def test_a_small_file_cannot_ask_for_much_memory(content, tmp_path, monkeypatch):
    from safetensors.torch import load, save

    inner = json.loads(header_of(content)[0]["__metadata__"]["napari_rvae"])
    inner |= {"size": 96, "k_max": 0.35, "channels": 256}
    inner["settings"] |= {"hidden": 4096, "latent": 64}
    tensors = {**load(content), "mean": torch.zeros(256), "kind_template": torch.zeros(1, 1, 4096)}
    monkeypatch.setattr(Model, "__init__", lambda *_: pytest.fail("a model was made of it"))
    refused(tmp_path, save(tensors, {"napari_rvae": json.dumps(inner)}))


def harmless(path):
    """Read a damaged file: a model that can be used, or one clear error; soon."""
    start = time.perf_counter()
    try:
        loaded = load_model(path)
    except ModelFileError as refusal:
        said, loaded = str(refusal), None
    if loaded is None:
        assert "\n" not in said
        assert time.perf_counter() - start < 1
        return
    with torch.no_grad():
        z, _ = loaded.encode(loaded.harmonics(torch.zeros(1, 1, 24, 24)))
    assert np.isfinite(z.numpy()).all()


@settings(deadline=None, max_examples=600, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    cut=st.floats(0.5, 1) | st.just(1.0),
    changes=st.lists(st.tuples(st.floats(0, 1) | st.floats(0, 0.3), st.integers(0, 255)), max_size=8),
)
def test_damaged_files_are_refused_or_still_a_model(content, tmp_path_factory, cut, changes):
    damaged = bytearray(content[: int(cut * len(content))])
    for place, value in changes:
        damaged[int(place * (len(damaged) - 1))] = value
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(damaged)
    harmless(path)


HOSTILE = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats()
    | st.sampled_from(["", "../../x", "/etc/passwd"]) | st.lists(st.integers(-5, 2**40), max_size=5)
    | st.dictionaries(st.text(max_size=5), st.integers(), max_size=3)
)  # fmt: skip


@settings(deadline=None, max_examples=500, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_descriptions_that_lie_are_refused_or_still_a_model(content, tmp_path_factory, data):
    """Any entry of the header, of a tensor or of the settings says something else."""
    outer, rest = header_of(content)
    inner = json.loads(outer["__metadata__"]["napari_rvae"])
    where = data.draw(st.sampled_from(["tensor", "entry", "settings", "name"]))
    if where == "tensor":
        name = data.draw(st.sampled_from(sorted(set(outer) - {"__metadata__"})))
        outer[name][data.draw(st.sampled_from(["shape", "data_offsets", "dtype"]))] = data.draw(HOSTILE)
    elif where == "name":
        name = data.draw(st.sampled_from(sorted(set(outer) - {"__metadata__"})))
        outer[data.draw(st.sampled_from(["../../x", "/etc/passwd", "", "decoder.hook", name * 50]))] = outer.pop(name)
    else:
        part = inner if where == "entry" else inner["settings"]
        part[data.draw(st.sampled_from(sorted(part)))] = data.draw(HOSTILE)
        outer["__metadata__"]["napari_rvae"] = json.dumps(inner)
    path = tmp_path_factory.getbasetemp() / "lying.safetensors"
    path.write_bytes(file_of(outer, rest))
    harmless(path)
