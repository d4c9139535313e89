import numpy as np
import pandas as pd
import pytest

from napari_rvae.averages.band import SEEN, noise_spectrum, signal_band
from napari_rvae.patches import extract_patches, patches_from_array
from napari_rvae.settings import PatchSettings


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).standard_normal((512, 512))


def somewhere(count=400):
    return pd.DataFrame(np.random.default_rng(1).uniform(60, 450, (count, 2)), columns=["y", "x"])


@pytest.mark.parametrize(("size", "working"), [(32, 32), (39, 32), (48, 32), (64, 32), (24, 32)])
def test_white_noise_has_this_spectrum_in_patches(noise, size, working):
    patches = extract_patches(noise, somewhere(), PatchSettings(size=size, working_size=working))
    window = np.hanning(working)
    cut = patches.data[:, 0] * np.outer(window, window)
    power = (np.abs(np.fft.fft2(cut)) ** 2).mean(0) / np.square(window).sum() ** 2
    expected = noise_spectrum(np.fft.fftfreq(working), size / working)
    seen = expected > SEEN
    near = power[np.ix_(seen, seen)] / np.outer(expected[seen], expected[seen])
    assert near.mean() == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose(near, 1, atol=0.4)  # 400 patches, which overlap


def test_the_band_ends_where_nothing_but_noise_is(noise):
    y, x = np.mgrid[:512, :512]
    for sigma, noisy, band in ((2.3, 1.0, 0.25), (0.8, 0.05, 0.35)):
        lattice = sum(
            np.exp(-((y - a) ** 2 + (x - b) ** 2) / (2 * sigma**2))
            for a in np.arange(20, 500, 24)
            for b in np.arange(20, 500, 24)
        )
        atoms = pd.DataFrame(np.mgrid[44:460:24, 44:460:24].reshape(2, -1).T, columns=["y", "x"]) + 0.4
        patches = extract_patches(3 * lattice + noisy * noise, atoms, PatchSettings(size=32))
        assert signal_band(patches) == pytest.approx(band)
    for size in (8, 16, 200, 256, 320):  # working sizes differ from these
        coarse = extract_patches(noise, somewhere(60).clip(160, 350), PatchSettings(size=size))
        assert signal_band(coarse) == pytest.approx(0.25)
    alone = patches_from_array(noise[:480, :480].reshape(15, 32, 15, 32).swapaxes(1, 2).reshape(-1, 32, 32))
    assert signal_band(alone) == pytest.approx(0.25)
