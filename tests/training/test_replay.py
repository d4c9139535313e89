"""Steps recorded on a graphics card and played again."""

import numpy as np
import pytest
import torch

from napari_rvae.patches import patches_from_array
from napari_rvae.samples import cards
from napari_rvae.settings import TrainSettings
from napari_rvae.training import train
from napari_rvae.training.replay import Replay

from .conftest import MODELS


def test_without_a_graphics_card_a_function_is_called_each_time():
    calls = []
    replay = Replay(torch.Generator())

    def doubled(x):
        calls.append(float(x))
        return 2 * x

    assert [float(replay("key", doubled, torch.tensor(float(number)))) for number in range(3)] == [0, 2, 4]
    assert calls == [0, 1, 2]


def test_what_cannot_be_recorded_is_called_each_time(monkeypatch):
    replay, keys = Replay(torch.Generator()), []

    def refused(key, function, given):
        keys.append(key)
        replay.works = False
        return False

    replay.works = True
    monkeypatch.setattr(replay, "_record", refused)
    assert [float(replay("key", torch.neg, torch.tensor(float(number)))) for number in range(4)] == [0, -1, -2, -3]
    assert keys == ["key"]


needs_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@needs_card
def test_played_again_it_reads_what_it_is_handed_and_draws_anew():
    chance = torch.Generator("cuda")
    replay, total = Replay(chance), torch.zeros(3, device="cuda")

    def step(x):
        total.add_(x)
        return x + torch.rand(3, generator=chance, device="cuda")

    drawn = [replay("key", step, torch.full((3,), float(number), device="cuda")).clone() for number in range(5)]
    assert replay.works
    assert total.tolist() == [10, 10, 10]
    rest = torch.stack(drawn) - torch.arange(5, device="cuda")[:, None]
    assert ((rest >= 0) & (rest < 1)).all()
    assert len(rest.unique()) == 15


@needs_card
def test_what_waits_for_the_card_is_not_recorded():
    replay = Replay(torch.Generator("cuda"))
    given = torch.ones(1, device="cuda")
    assert [replay("key", lambda x: x * float(x), given).item() for _ in range(4)] == [1, 1, 1, 1]
    assert not replay.works


@needs_card
@pytest.mark.parametrize(("name", "options"), MODELS)
def test_recorded_steps_learn_what_others_do_and_the_same_each_time(name, options, monkeypatch):
    images, truth = cards(1, 400, 24)
    patches, label = patches_from_array(images), truth["label"].to_numpy()
    settings = TrainSettings(model=name, hidden=32, epochs=8, seed=1, device="cuda", **options)
    known = {"labels": np.where(np.arange(400) < 40, label, -1)} if name == "ssrvae" else {}
    known |= {"condition": label} if name == "crvae" else {}
    recorded, record = [], Replay._record
    monkeypatch.setattr(Replay, "_record", lambda self, *given: recorded.append(record(self, *given)) or recorded[-1])
    once, twice = (list(train(patches, settings, **known))[-1] for _ in range(2))
    assert recorded
    assert all(recorded)
    assert once.losses == twice.losses
    for one, other in zip(once.model.parameters(), twice.model.parameters(), strict=True):
        assert torch.equal(one, other)
    monkeypatch.setattr(Replay, "__call__", lambda self, key, function, *given: function(*given))
    plain = list(train(patches, settings, **known))[-1]
    assert [loss for _, loss, _ in plain.losses] == pytest.approx([loss for _, loss, _ in once.losses], rel=0.02)
