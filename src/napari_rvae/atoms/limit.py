"""Which atoms stand at the limit of detection."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

MARGIN = 1.0  # standard deviation: by so much noise may have raised an atom over the threshold


def at_the_limit(atoms: pd.DataFrame) -> NDArray[np.bool_]:
    """Tell atoms that noise may have made, or that it would have hidden had they been alone.

    Parameters
    ----------
    atoms : pandas.DataFrame
        As `find_atoms` gives it, with its threshold in ``attrs``.

    Returns
    -------
    numpy.ndarray
        (n,) bool: less than one standard deviation above the threshold, or below it and found by their lattice.
    """
    threshold = atoms.attrs.get("napari_rvae", {}).get("threshold", 0.0)
    return np.asarray(atoms["snr"].to_numpy() < threshold + MARGIN)
