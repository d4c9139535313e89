"""Positions as atomap and HyperSpy find them, or atomap's fit; runs in an environment of theirs.

python atom_peers.py IMAGE.npy SPACING OUT.npz [POSITIONS.npy]
"""

import logging
import sys
import time
import warnings

import numpy as np


def main():
    image, spacing = np.load(sys.argv[1]).astype(float), float(sys.argv[2])
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    import atomap.api as am
    import hyperspy.api as hs

    if len(sys.argv) > 4:
        seconds = fit_seconds(image, np.load(sys.argv[4]))
        np.savez(sys.argv[3], seconds=seconds)
        return
    across = am.get_atom_positions(hs.signals.Signal2D(image), separation=max(2, round(0.7 * spacing)))
    high = (image - np.median(image)) / np.ptp(np.percentile(image, [1, 99]))
    told = {"min_sigma": 0.14 * spacing, "max_sigma": 0.28 * spacing, "threshold": 0.05}
    blobs = hs.signals.Signal2D(high).find_peaks("difference_of_gaussian", interactive=False, **told)
    found = {
        "atomap": np.asarray(across, float).reshape(-1, 2)[:, ::-1],
        "HyperSpy": np.asarray(blobs.data if blobs.data.dtype != object else blobs.data[0], float).reshape(-1, 2),
    }
    np.savez(sys.argv[3], **found)


def fit_seconds(image, positions):
    """Of atomap's fit of a Gaussian to each atom, masked where its neighbours are."""
    from atomap.sublattice import Sublattice

    sublattice = Sublattice(positions[:, ::-1].copy(), image)
    sublattice.find_nearest_neighbors()
    start = time.perf_counter()
    sublattice.refine_atom_positions_using_2d_gaussian(percent_to_nn=0.4, show_progressbar=False)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
