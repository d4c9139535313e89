from itertools import pairwise

import numpy as np
import pytest

from napari_rvae.atoms import complete, find, find_atoms, refine, refine_atoms
from napari_rvae.errors import InputDataError, Stopped
from napari_rvae.settings import FindSettings


def test_frames_of_a_stack_may_have_regions_of_their_own(perovskite):
    image, *_ = perovskite
    region = np.zeros(image.shape, bool)
    region[80:170, 60:150] = True
    stack, parts = np.stack([image] * 3), np.stack([region & False, region, ~region])
    told = []
    atoms = find_atoms(stack, region=parts, progress=lambda fraction, text: told.append(text))
    assert atoms["frame"].unique().tolist() == [1, 2]
    assert "unusable" not in atoms.attrs["napari_rvae"]
    assert [text for text in told if text.startswith("frame")] == ["frame 2 of 3", "frame 3 of 3"]
    y, x = np.round(atoms[["y", "x"]].to_numpy()).astype(int).T
    assert parts[atoms["frame"], y.clip(0, 191), x.clip(0, 207)].all()
    assert len(atoms) == pytest.approx(len(find_atoms(image)), abs=3)
    for wrong, words in ((parts[:2], "shape"), (parts & False, "no pixel")):
        with pytest.raises(InputDataError, match=words):
            find_atoms(stack, region=wrong)


def test_between_steps_that_take_long_on_a_large_image_it_is_asked_whether_to_stop(perovskite, monkeypatch):
    image, *_ = perovskite
    steps = []

    def noted(name, function):
        return lambda *given, **more: (steps.append(name), function(*given, **more))[1]

    long = {
        find: ("estimate_noise", "estimate_scale", "filter_response"),
        complete: ("filter_response", "model_image", "local_lattices", "lattice_sites"),
        refine: ("_sweep",),
    }
    for module, names in long.items():
        for name in names:
            monkeypatch.setattr(module, name, noted(name, getattr(module, name)))
    atoms = find_atoms(image, stop=lambda: steps.append("asked"))
    assert set(steps) == {"asked", *(name for names in long.values() for name in names)}
    assert all("asked" in pair for pair in pairwise(steps))
    with pytest.raises(Stopped):
        refine_atoms(image, atoms, stop=lambda: True)


@pytest.mark.parametrize("contrast", [1, -1])
def test_another_setting_needs_no_other_look_at_the_noise(perovskite, contrast):
    image, *_ = perovskite
    image = contrast * image.astype(float)
    known = find.prepare(image)
    for settings in (FindSettings(), FindSettings(sigma=3.0), FindSettings(spacing=20.0, contrast="bright")):
        again, anew = known.again(settings), find.prepare(image, settings)
        assert again.contrast == anew.contrast
        assert again.sigma == anew.sigma
        np.testing.assert_array_equal(again.positions(), anew.positions())
