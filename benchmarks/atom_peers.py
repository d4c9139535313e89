"""Positions as atomap finds them; runs in an environment of theirs.

python atom_peers.py IMAGE.npy SPACING OUT.npz
"""

import logging
import sys
import warnings

import numpy as np


def main():
    image, spacing = np.load(sys.argv[1]).astype(float), float(sys.argv[2])
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    import atomap.api as am
    import hyperspy.api as hs

    signal = hs.signals.Signal2D(image)
    across = am.get_atom_positions(signal, separation=max(2, round(0.7 * spacing)))
    found = {"atomap": np.asarray(across, float).reshape(-1, 2)[:, ::-1]}
    np.savez(sys.argv[3], **found)


if __name__ == "__main__":
    main()
