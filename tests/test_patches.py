"""Patches show what is around an atom at its exact position, and say what they cannot show."""

import dask.array
import h5py
import numpy as np
import pandas as pd
import pytest

from napari_rvae.errors import InputDataError, Stopped
from napari_rvae.patches import automatic_size, extract_patches, nearest_neighbor_distance, patches_from_array
from napari_rvae.settings import PatchSettings


def blob(y, x, shape=(80, 90), sigma=2.0, tall=1.0):
    """One Gaussian; rows are `tall` times as high as columns are wide."""
    rows, columns = np.indices(shape)
    return np.exp(-(((rows - y) * tall) ** 2 + (columns - x) ** 2) / (2 * sigma**2))


def table(*places, **columns):
    return pd.DataFrame(np.array(places, float).reshape(-1, 2), columns=["y", "x"]).assign(**columns)


def centered(size, sigma=2.0, step=1.0):
    axis = (np.arange(size) - (size - 1) / 2) * step
    return np.exp(-(axis[:, None] ** 2 + axis**2) / (2 * sigma**2))


def lattice(shape, spacing):
    y, x = np.mgrid[spacing : shape[0] - spacing : spacing, spacing : shape[1] - spacing : spacing]
    return table(*zip(y.ravel(), x.ravel(), strict=True))


@pytest.mark.parametrize("place", [(40.0, 45.0), (40.5, 45.5), (39.73, 44.21), (40.11, 45.93)])
@pytest.mark.parametrize("size", [24, 25])
def test_patches_are_cut_at_the_exact_position(place, size):
    patches = extract_patches(blob(*place), table(place), PatchSettings(size=size))
    assert patches.data.shape == (1, 1, size, size)
    assert patches.data.dtype == np.float32
    np.testing.assert_allclose(patches.data[0, 0], centered(size), atol=2e-3)
    np.testing.assert_array_equal(patches.centers[0], place)
    assert (patches.size, patches.scale, len(patches)) == (size, 1.0, 1)
    assert not patches.edge.any()


def test_atoms_keep_their_identity_and_order():
    atoms = table((30, 30), (50, 60), (40, 20), atom_id=[7, 3, 11])
    patches = extract_patches(blob(50, 60), atoms, PatchSettings(size=16))
    assert patches.atom_id.tolist() == [7, 3, 11]
    some = patches.select(np.array([False, True, True]))
    assert some.atom_id.tolist() == [3, 11]
    assert some.data[0].max() > 0.9 > some.data[1].max()
    assert extract_patches(blob(50, 60), atoms[["y", "x"]], PatchSettings(size=16)).atom_id.tolist() == [0, 1, 2]


def test_patches_over_the_edge_are_flagged_and_filled_by_reflection():
    rng = np.random.default_rng(0)
    image = rng.random((60, 60))
    patches = extract_patches(
        image, table((11.5, 30), (11.4, 30), (30, 47.5), (30, 48.6), (0, 0)), PatchSettings(size=24)
    )
    assert patches.edge.tolist() == [False, True, False, True, True]
    mirrored = np.pad(image, 24, mode="reflect")
    expected = extract_patches(mirrored, table((24, 24)), PatchSettings(size=24)).data
    np.testing.assert_allclose(patches.data[4], expected[0], atol=1e-4)


def test_missing_pixels_are_flagged_and_filled():
    image = blob(40, 45)
    image[:, 60:63] = np.nan
    image[0, 0] = np.inf
    patches = extract_patches(image, table((40, 45), (40, 51), (40, 78)), PatchSettings(size=24))
    assert np.isfinite(patches.data).all()
    assert patches.edge.tolist() == [False, True, True]  # 60 - 45 lies outside the square, 60 - 51 within it
    np.testing.assert_allclose(patches.data[0, 0], centered(24, step=1), atol=0.25)


def test_channels_share_their_positions():
    layers = np.stack([blob(40, 45), 2 * blob(40, 48)])
    first = extract_patches(layers, table((40, 45)), PatchSettings(size=24), channel_axis=0)
    last = extract_patches(np.moveaxis(layers, 0, -1), table((40, 45)), PatchSettings(size=24), channel_axis=-1)
    assert first.data.shape == (1, 2, 24, 24)
    np.testing.assert_array_equal(first.data, last.data)
    alone = extract_patches(layers[1], table((40, 45)), PatchSettings(size=24))
    np.testing.assert_allclose(first.data[:, 1], alone.data[:, 0])


class Frames:
    """Counts which frames a lazy stack has been asked for."""

    def __init__(self, stack):
        self.stack, self.read = stack, []

    def lazily(self):
        def one(block_info=None):
            number = block_info[None]["array-location"][0][0]
            self.read.append(number)
            return self.stack[number : number + 1]

        chunks = ((1,) * len(self.stack), *((n,) for n in self.stack.shape[1:]))
        return dask.array.map_blocks(one, chunks=chunks, dtype=self.stack.dtype, meta=np.empty((0, 0, 0)))


def test_stacks_are_read_frame_by_frame_and_only_where_atoms_are():
    stack = np.stack([blob(40 + 3 * t, 45) for t in range(4)])
    atoms = table((46, 45), (40, 45), (46, 30), frame=[2, 0, 2])
    frames = Frames(stack)
    lazy = extract_patches(frames.lazily(), atoms, PatchSettings(size=24))
    assert sorted(frames.read) == [0, 2]
    assert lazy.frame.tolist() == [2, 0, 2]
    np.testing.assert_allclose(lazy.data[:2, 0], [centered(24)] * 2, atol=2e-3)
    np.testing.assert_array_equal(lazy.data, extract_patches(stack, atoms, PatchSettings(size=24)).data)
    moved = lazy.moved(np.array([[0, 0], [0, 0], [0, 15.0]]))
    np.testing.assert_allclose(moved.data[2, 0], centered(24), atol=2e-3)


@pytest.mark.parametrize("axis", [0, 1, 3, -1, -4])
def test_stacks_with_channels(axis):
    stack = np.stack([[blob(40 + 3 * t, 45), blob(40, 45 + 3 * t)] for t in range(3)])  # (t, c, y, x)
    atoms = table((46, 45), (40, 51), frame=[2, 2])
    patches = extract_patches(np.moveaxis(stack, 1, axis), atoms, PatchSettings(size=24), channel_axis=axis)
    np.testing.assert_allclose(patches.data[[0, 1], [0, 1]], [centered(24)] * 2, atol=2e-3)


def test_arrays_in_a_file_are_read_from_there(tmp_path):
    with h5py.File(tmp_path / "image.h5", "w") as file:
        flat, stack = file.create_dataset("a", data=blob(40, 45)), file.create_dataset("b", data=[blob(40, 45)] * 2)
        one = extract_patches(flat, table((40, 45)), PatchSettings(size=24))
        two = extract_patches(stack, table((40, 45), frame=[1]), PatchSettings(size=24))
    np.testing.assert_allclose(one.data[0, 0], centered(24), atol=2e-3)
    np.testing.assert_array_equal(one.data, two.data)


def test_size_follows_from_the_distance_between_atoms():
    atoms = lattice((120, 120), 11)
    assert nearest_neighbor_distance(atoms) == 11
    assert automatic_size(atoms, (120, 120)) == 33
    assert automatic_size(atoms, (20, 120)) == 20
    assert automatic_size(atoms, (120, 120), strained=True) == 55
    atoms.attrs["napari_rvae"] = {"target": "molecules", "sigma": 4.0}  # a molecule, not its neighbours
    assert automatic_size(atoms, (120, 120)) == 22
    atoms.attrs.clear()
    patches = extract_patches(np.random.default_rng(0).random((120, 120)), atoms)
    assert (patches.settings.size, patches.settings.working_size, patches.data.shape[-1]) == (33, 33, 33)
    frames = pd.concat([atoms.assign(frame=0), (atoms + 0.1).assign(frame=1)])
    assert nearest_neighbor_distance(frames) == pytest.approx(11)  # frames are not each other's neighbours


def test_pixels_that_are_not_square_are_cut_on_a_square_grid():
    image = blob(20.3, 45.6, shape=(40, 90), tall=2.0)  # a pixel is twice as high as wide
    patches = extract_patches(image, table((20.3, 45.6)), PatchSettings(size=24), pixel_size=(2.0, 1.0))
    assert patches.step == (0.5, 1.0)
    np.testing.assert_allclose(patches.data[0, 0], centered(24), atol=0.03)
    same = extract_patches(image, table((20.3, 45.6)), PatchSettings(size=24), pixel_size=(1.005, 1.0))
    assert same.step == (1.0, 1.0)


def test_large_patches_are_resampled_without_aliasing():
    place = (150.37, 149.81)
    checkers = np.indices((300, 300)).sum(0) % 2
    patches = extract_patches(
        blob(*place, (300, 300), 20) + checkers, table(place), PatchSettings(size=200, working_size=40)
    )
    assert patches.data.shape == (1, 1, 40, 40)
    assert (patches.scale, patches.size) == (5.0, 200)
    np.testing.assert_allclose(patches.data[0, 0] - 0.5, centered(40, 20, 5.0), atol=0.02)
    assert extract_patches(checkers, table(place), PatchSettings(size=200)).data.shape[-1] == 64


def test_moving_cuts_again():
    patches = extract_patches(blob(40.4, 45.3), table((40, 45), (41, 44)), PatchSettings(size=24, working_size=48))
    moved = patches.moved(np.array([[0.4, 0.3], [-0.6, 1.3]]))
    np.testing.assert_allclose(moved.centers, [(40.4, 45.3)] * 2)
    np.testing.assert_allclose(moved.data[:, 0], [centered(48, step=0.5)] * 2, atol=2e-3)
    np.testing.assert_array_equal(patches.centers, [(40, 45), (41, 44)])
    ready = patches_from_array(patches.data)
    assert ready.moved(np.ones((2, 2))) is ready


def test_progress_and_stop():
    told = []
    extract_patches(blob(40, 45), table((40, 45), (30, 30)), PatchSettings(size=16), progress=lambda *a: told.append(a))
    assert told[-1][0] == 1.0
    with pytest.raises(Stopped):
        extract_patches(blob(40, 45), table((40, 45)), PatchSettings(size=16), stop=lambda: True)


@pytest.mark.parametrize(
    ("image", "atoms", "options", "words"),
    [
        (blob(9, 9), pd.DataFrame({"y": [1.0]}), {}, "no column x"),
        (blob(9, 9), table(), {}, "no atoms"),
        (blob(9, 9)[None], table((9, 9), (20, 20)), {}, "3 axes where 2"),
        (blob(9, 9), table((9, 9), frame=[0]), {}, "2 axes where 3"),
        (blob(9, 9), table((9, 9)), {"channel_axis": 0}, "2 axes where 3"),
        (blob(9, 9) + 1j, table((9, 9), (20, 20)), {}, "complex128"),
        (blob(9, 9), table((9, np.nan), (20, 20)), {}, "no position"),
        (blob(9, 9)[None], table((9, 9), (20, 20), frame=[0, 1]), {}, "frames outside 0 to 0"),
        (blob(9, 9)[None], table((9, 9), (20, 20), frame=[-1, 0]), {}, "frames outside 0 to 0"),
        (np.zeros((5, 2, 80, 90)), table((9, 9), frame=[2]), {"channel_axis": -4}, "frames outside 0 to 1"),
        (blob(9, 9), table((9, 9)), {}, "give the patch size"),
        (blob(9, 9), table((9, 9)), {"settings": PatchSettings(size=81)}, "81 pixels do not fit"),
        (blob(9, 9)[:6], table((3, 9), (3, 20)), {}, "do not fit"),
        (np.full((80, 90), np.nan), table((40, 40)), {"settings": PatchSettings(size=16)}, "no finite values"),
    ],
)
def test_what_cannot_be_cut_is_said(image, atoms, options, words):
    with pytest.raises(InputDataError, match=words):
        extract_patches(image, atoms, **options)


def test_ready_made_patches():
    rng = np.random.default_rng(0)
    array = rng.random((5, 20, 20))
    patches = patches_from_array(array)
    np.testing.assert_allclose(patches.data[:, 0], array, rtol=1e-6)
    assert (patches.size, patches.scale, patches.settings.working_size) == (20, 1.0, 20)
    assert patches.atom_id.tolist() == list(range(5))
    assert not patches.edge.any()
    assert patches_from_array(rng.random((5, 3, 20, 20))).data.shape == (5, 3, 20, 20)
    assert patches_from_array((255 * array).astype(np.uint8)).data.max() > 200


def test_ready_made_patches_seen_backwards_can_be_learned_from():
    import torch

    array = np.random.default_rng(0).random((5, 20, 20)).astype(np.float32)
    for view in (array[::-1], array[:, ::-1, ::-1], array.transpose(0, 2, 1)):
        np.testing.assert_array_equal(torch.as_tensor(patches_from_array(view).data)[:, 0], view)


def test_large_ready_made_patches_are_resampled():
    axis = np.arange(128) - 63.5
    array = np.exp(-(axis[:, None] ** 2 + axis**2) / (2 * 16**2))[None, None].repeat(2, 1)
    patches = patches_from_array(array)
    assert patches.data.shape == (1, 2, 64, 64)
    assert (patches.scale, patches.size) == (2.0, 128)
    np.testing.assert_allclose(patches.data[0, 1], centered(64, 16, 2.0), atol=0.01)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 20, 20), complex), "real numbers"),
        (np.array(["a"]), "real numbers"),
        (np.zeros((20, 20)), "shape"),
        (np.zeros((3, 20, 24)), "shape"),
        (np.zeros((3, 7, 7)), "8 <= h"),
        (np.zeros((0, 20, 20)), "shape"),
        (np.full((3, 20, 20), np.nan), "missing or infinite"),
        (np.full((3, 20, 20), 1e300), "missing or infinite"),
        (np.zeros((1, 600, 600), np.uint8), "512"),
    ],
)
def test_arrays_that_are_no_patches_are_refused(array, words):
    with pytest.raises(InputDataError, match=words):
        patches_from_array(array)
