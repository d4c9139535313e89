"""What may come between the first epoch and the last: a kill, a stop, a full memory, a full disk, numbers gone wild.

| fault | what happens | test |
|---|---|---|
| the program is killed | goes on where it was, ends with the same weights | test_killed_training_goes_on |
| the machine fails while the state is written | the state before it is still there | test_state_is_whole_or_not_there |
| the disk is full | goes on, says so once | test_full_disk_is_said_once |
| the kept state is damaged, or of another training | refused | test_state_that_does_not_fit_is_refused |
| the memory is full | batch halved, said, went on | test_full_memory_halves_the_batch |
| the same, and stopped later | repeated exactly | test_training_with_a_full_memory_that_was_stopped_is_repeated |
| the same, while poses are found | smaller blocks | test_full_memory_halves_the_blocks_in_which_poses_are_found |
| the same, anywhere else | what to do is said | test_full_memory_is_explained_wherever_it_happens |
| the loss is no number | the last good model is kept, said | test_unstable_training_keeps_the_last_good_model |
| stopped by the user | what was learned is kept, and repeated exactly | test_stopped_training_is_repeated |
"""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from napari_rvae.errors import DeviceError, InputDataError, OutputError
from napari_rvae.patches import extract_patches, patches_from_array
from napari_rvae.settings import PatchSettings, TrainSettings
from napari_rvae.training import Earlier, train
from napari_rvae.training.checkpoints import Checkpoint
from napari_rvae.training.loop import Trainer

SHORT = TrainSettings(epochs=5, hidden=8, early_stopping=False, start="scratch", device="cpu", threads=1)


def crystal_patches(n=10):
    """Patches of an image, so that windows follow their motifs."""
    rng = np.random.default_rng(0)
    places = np.stack(np.meshgrid(*[np.arange(n) * 12 + 14] * 2, indexing="ij"), -1).reshape(-1, 2)
    places = places + rng.uniform(-0.8, 0.8, places.shape)
    y, x = np.mgrid[: n * 12 + 16, : n * 12 + 16]
    image = 0.05 * rng.standard_normal(y.shape)
    for number, (top, left) in enumerate(places):
        image += (1 + number % 2) * np.exp(-((y - top) ** 2 + (x - left) ** 2) / 8)
    atoms = pd.DataFrame({"atom_id": np.arange(len(places)), "y": np.rint(places[:, 0]), "x": np.rint(places[:, 1])})
    return extract_patches(image, atoms, PatchSettings(size=16))


@pytest.fixture(scope="module")
def patches():
    return crystal_patches()


@pytest.fixture(scope="module")
def whole(patches):
    """The model of a training that nothing happened to."""
    return list(train(patches, SHORT))[-1].model


def same(model, other):
    ours, theirs = model.state_dict(), other.state_dict()
    return set(ours) == set(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


class Crash(BaseException):
    """As abrupt as the end of a program."""


def crash_at(asked):
    count = iter(range(1, 10_000))

    def stop():
        if next(count) == asked:
            raise Crash
        return False

    return stop


@pytest.mark.parametrize("asked", [2, 10, 14])  # in the first epoch, later ones, and while poses are estimated
def test_interrupted_training_ends_with_the_same_weights(patches, whole, tmp_path, asked):
    checkpoint = Checkpoint(tmp_path, every=0)
    with pytest.raises(Crash):
        list(train(patches, SHORT, stop=crash_at(asked), checkpoint=checkpoint))
    facts = Checkpoint(tmp_path).facts()
    assert facts["place"]["asked"] == asked - 2  # lost: what came after the last state
    reports = list(train(patches, SHORT, checkpoint=Checkpoint(tmp_path)))
    assert reports[0].epoch == facts["epoch"] + 1
    assert same(reports[-1].model, whole)
    assert reports[-1].model.recipe == whole.recipe


def test_it_is_interrupted_while_poses_are_estimated_too(patches, tmp_path):
    parts = set()
    for asked in (10, 14):
        with pytest.raises(Crash):
            list(train(patches, SHORT, stop=crash_at(asked), checkpoint=Checkpoint(tmp_path / str(asked), every=0)))
        parts.add(Checkpoint(tmp_path / str(asked)).facts()["place"]["part"])
    assert parts == {"learning", "posing"}


def test_end_of_a_long_training_is_resumed(tmp_path, monkeypatch):
    """With held-out patches and the smaller steps at the end."""
    monkeypatch.setattr("napari_rvae.training.course.FEWEST_STEPS", 50)
    patches = crystal_patches(15)
    settings = SHORT.model_copy(update={"early_stopping": True, "epochs": 9})
    whole = list(train(patches, settings))[-1].model
    epochs = whole.recipe["epochs_done"]
    reports = train(patches, settings, checkpoint=Checkpoint(tmp_path, every=0))
    for report in reports:
        if report.epoch == epochs - 1:
            break
    reports.close()
    facts = Checkpoint(tmp_path).facts()
    assert facts["place"]["fallen"]
    assert same(list(train(patches, settings, checkpoint=Checkpoint(tmp_path)))[-1].model, whole)


def test_training_that_started_from_averages_is_resumed(patches, tmp_path):
    settings = SHORT.model_copy(update={"start": "averages", "epochs": 2})
    whole = list(train(patches, settings, checkpoint=Checkpoint(tmp_path, every=0)))[-1].model
    facts = Checkpoint(tmp_path).facts()  # from shortly before its end
    assert (facts["epoch"], facts["place"]["part"]) == (1, "posing")
    assert same(list(train(patches, settings, checkpoint=Checkpoint(tmp_path)))[-1].model, whole)


def test_killed_training_goes_on(patches, whole, tmp_path):
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_faults import SHORT, crystal_patches
from napari_rvae.training import train
from napari_rvae.training.checkpoints import Checkpoint
from pathlib import Path
for report in train(crystal_patches(), SHORT, checkpoint=Checkpoint(Path({str(tmp_path)!r}), every=0)):
    print(report.phase, report.epoch, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("training 2"):
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    assert Checkpoint(tmp_path).facts()["epoch"] >= 1
    resumed = list(train(patches, SHORT, checkpoint=Checkpoint(tmp_path)))[-1].model
    assert same(resumed, whole)


def test_state_is_whole_or_not_there(patches, tmp_path, monkeypatch):
    from napari_rvae.training import checkpoints

    good = checkpoints._tensors
    calls = []

    def half(course):
        calls.append(1)
        if len(calls) == 3:
            raise Crash
        return good(course)

    monkeypatch.setattr(checkpoints, "_tensors", half)
    with pytest.raises(Crash):
        list(train(patches, SHORT, checkpoint=Checkpoint(tmp_path, every=0)))
    assert [file.name for file in tmp_path.iterdir()] == ["state.safetensors"]
    assert Checkpoint(tmp_path).facts()["place"]["asked"] == 1


def test_state_is_kept_now_and_then_only(patches, tmp_path):
    list(train(patches, SHORT, checkpoint=Checkpoint(tmp_path, every=60)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seconds", [0.1, 3.0, 10.0])
def test_states_are_never_more_than_half_a_minute_apart(tmp_path, monkeypatch, seconds):
    from napari_rvae.training import checkpoints

    now, kept = [0.0], []

    def write(self, course):
        kept.append(now[0])
        now[0] += seconds  # the disk is slow

    monkeypatch.setattr(checkpoints.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(Checkpoint, "_write", write)
    checkpoint = Checkpoint(tmp_path)
    while now[0] < 200:
        assert checkpoint.keep(None) == ""
        now[0] += 1
    apart = np.diff([0, *kept])
    assert apart.max() <= 30
    assert apart.min() >= 2 * seconds  # and there is time to train


def test_full_disk_is_said_once(patches, whole, tmp_path, monkeypatch):
    from napari_rvae.training import checkpoints

    def full(file):
        raise OutputError(f"cannot write to {file.parent}: No space left on device; choose another place")

    monkeypatch.setattr(checkpoints, "replacing", full)
    reports = list(train(patches, SHORT, checkpoint=Checkpoint(tmp_path, every=0)))
    (note,) = reports[-1].notes
    assert "not kept for a crash" in note
    assert "No space left" in note
    assert same(reports[-1].model, whole)


def test_state_that_does_not_fit_is_refused(patches, tmp_path):
    with pytest.raises(Crash):
        list(train(patches, SHORT, stop=crash_at(9), checkpoint=Checkpoint(tmp_path, every=0)))
    for others, settings in (
        (patches.select(np.arange(50)), SHORT),
        (patches, SHORT.model_copy(update={"seed": 1})),
    ):
        with pytest.raises(InputDataError, match="other patches or with other settings"):
            list(train(others, settings, checkpoint=Checkpoint(tmp_path)))
    state = Checkpoint(tmp_path).file
    for damaged in (state.read_bytes()[:-100], b"nothing"):
        state.write_bytes(damaged)
        assert Checkpoint(tmp_path).facts() is None


def limited(monkeypatch, at_step, largest):
    """A memory that is full from one step on with more patches than it holds."""
    step = Trainer.step

    def greedy(self, rows, log_prior):
        if self.steps >= at_step and len(rows) > largest:
            torch.randn(3)  # the step had begun
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(self, rows, log_prior)

    monkeypatch.setattr(Trainer, "step", greedy)


def test_full_memory_halves_the_batch(patches, monkeypatch):
    settings = SHORT.model_copy(update={"batch_size": 50})
    with monkeypatch.context() as patch:
        limited(patch, at_step=9, largest=10)
        reports = list(train(patches, settings))
    done = reports[-1]
    assert done.notes == ("The memory was full: went on with 8 patches per step.",)
    assert done.model.recipe["batches"] == [[0, 16], [9, 8]]
    assert done.model.recipe["epochs_done"] == 5
    again = Earlier(batches=((0, 16), (9, 8)))
    assert same(list(train(patches, settings, earlier=again))[-1].model, done.model)


def test_training_with_a_full_memory_that_was_stopped_is_repeated(patches, monkeypatch):
    settings, asked = SHORT.model_copy(update={"batch_size": 50}), []
    with monkeypatch.context() as patch:
        limited(patch, at_step=9, largest=10)
        stop = lambda: asked.append(1) or len(asked) > 25  # noqa: E731
        stopped = list(train(patches, settings, stop=stop))[-1].model
    recipe = stopped.recipe
    assert len(recipe["batches"]) == 2
    again = Earlier(recipe["stopped_after"], tuple(map(tuple, recipe["batches"])))
    assert same(list(train(patches, settings, earlier=again))[-1].model, stopped)


def test_memory_that_is_always_full_ends_the_training(patches, monkeypatch):
    limited(monkeypatch, at_step=0, largest=0)
    with pytest.raises(DeviceError, match="full even with 4 patches per step"):
        list(train(patches, SHORT))


def test_full_memory_is_explained_wherever_it_happens(patches, monkeypatch):
    def greedy(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    for place in ("loop.Trainer.__init__", "loop.Trainer.held_out_loss", "finish.estimated"):
        with monkeypatch.context() as patch:
            patch.setattr(f"napari_rvae.training.{place}", greedy)
            with pytest.raises(DeviceError, match="not enough memory on cpu: take smaller patches"):
                list(train(patches, SHORT))


def test_full_memory_halves_the_blocks_in_which_poses_are_found(patches, whole, monkeypatch):
    from napari_rvae.latent import coding, encode
    from napari_rvae.training import finish, loop

    table = encode(whole, patches)
    for module, name in ((loop, "improve"), (finish, "infer"), (coding, "infer")):
        monkeypatch.setattr(module, name, frugal(getattr(module, name)))
    done = list(train(patches, SHORT))[-1]
    model = done.model
    assert done.notes == ("The memory was full: poses were found for fewer patches at a time.",)
    assert model.recipe["notes"] == list(done.notes)
    ours, theirs = dict(model.named_parameters()), dict(whole.named_parameters())
    assert all(torch.allclose(ours[name], theirs[name], atol=0.05) for name in theirs)
    again = encode(whole, patches)
    assert again["atom_id"].equals(table["atom_id"])
    np.testing.assert_allclose(again[["z1", "z2"]], table[["z1", "z2"]], atol=1e-3)


def frugal(infer):
    """Inference in a memory that holds few patches."""

    def limited_infer(model, x, *given, **options):
        if len(x) > 30:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return infer(model, x, *given, **options)

    return limited_infer


def test_unstable_training_keeps_the_last_good_model(patches, monkeypatch):
    step = Trainer.step

    def wild(self, rows, log_prior):
        terms = step(self, rows, log_prior)
        if self.steps == 14:
            with torch.no_grad():
                next(self.model.parameters()).fill_(float("nan"))
        return terms

    good = list(train(patches, SHORT.model_copy(update={"epochs": 2})))[-1].model
    monkeypatch.setattr(Trainer, "step", wild)
    done = list(train(patches, SHORT))[-1]
    (note,) = done.notes
    assert "unstable in epoch 3: the model of epoch 2 was kept" in note
    assert done.model.recipe["epochs_done"] == 2
    for name, value in good.named_parameters():
        assert torch.equal(dict(done.model.named_parameters())[name], value)


def test_stopped_training_is_repeated(patches):
    asked = []
    stopped = list(train(patches, SHORT, stop=lambda: asked.append(1) or len(asked) > 16))[-1].model
    assert stopped.recipe["epochs_done"] == 2
    earlier = Earlier(stopped_after=stopped.recipe["stopped_after"])
    assert same(list(train(patches, SHORT, earlier=earlier))[-1].model, stopped)


def test_a_look_at_a_model_that_learns(patches, whole):
    reports = list(train(patches, SHORT, look_every=0.0))
    looks = [report.look for report in reports if report.look is not None]
    assert looks
    np.testing.assert_array_equal(looks[-1].atom_id, patches.atom_id)
    assert looks[-1].latents.shape == (len(patches), 2)
    side = patches.data.shape[-1]
    assert looks[-1].manifold.shape == (7 * side, 7 * side)
    assert same(reports[-1].model, whole)  # looking changes nothing


def test_a_look_shows_all_channels(patches):
    two = patches_from_array(np.concatenate([patches.data, -patches.data], 1))
    look = [report.look for report in train(two, SHORT, look_every=0.0) if report.look is not None][-1]
    first, second = np.split(look.manifold, 2, axis=1)
    assert first.shape == (7 * two.data.shape[-1],) * 2
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] < -0.8
