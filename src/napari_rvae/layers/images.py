"""What an image layer holds and where it lies in the world."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image

from napari_rvae.errors import InputDataError, RVAEError
from napari_rvae.io import ImageData, load_image
from napari_rvae.io.files import sha256
from napari_rvae.io.images import SOURCE
from napari_rvae.layers.models import channels_of, file_of, stacked

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer, Points
    from numpy.typing import NDArray

DERIVED = {"napari_rvae_derived": True}  # metadata of images computed from others: input only where somebody says so
_UNSAVED = Path("in no file")
_READABLE = 1e-3  # in whichever unit


def add_image(viewer: ViewerModel, image: ImageData) -> list[Image]:
    """Show an image or a stack that was read from a file.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        Where the layer is added.
    image : ImageData
        From `napari_rvae.io.load_image`.

    Returns
    -------
    list of napari.layers.Image
        One for each channel, with the file's scale and unit; the first is shown and active.
    """
    channels = channel_layers(image, image.name)
    frames = channels[0][0].ndim - 2
    placed: dict[str, Any] = {}
    if image.pixel_size is not None:
        unit = image.unit or "pixel"
        placed = {"scale": (*(1.0,) * frames, *image.pixel_size), "units": (*("pixel",) * frames, unit, unit)}
    layers = [viewer.add_image(pixels, **shown, **placed) for pixels, shown in channels]
    viewer.layers.selection.active = layers[0]
    return layers


def channel_layers(image: ImageData, name: str) -> list[tuple[Any, dict[str, Any]]]:
    """Give what the layers of an image are made of.

    Parameters
    ----------
    image : ImageData
        From `napari_rvae.io.load_image`.
    name : str
        Of the first layer, where channels have no names of their own.

    Returns
    -------
    list of tuple
        Pixels, and what the layer is told besides, of every channel. Only the first is shown, they cover each other.
    """
    if image.channel_axis is None:
        return [(image.data, {"name": name, "metadata": {SOURCE: image}})]
    names = [name, *(f"{name} channel {number}" for number in range(2, len(image.data) + 1))]
    names = list(image.channels) if len(image.channels) == len(names) else names
    return [
        (pixels, {"name": own, "metadata": {SOURCE: image}, "visible": own is names[0]})
        for own, pixels in zip(names, image.data, strict=True)
    ]


def add_beside(
    viewer: ViewerModel,
    pictures: NDArray[Any],
    name: str,
    image: Image | None,
    part: float = 1.0,
    metadata: dict[str, Any] | None = None,
) -> Image:
    """Show pictures at the right of an image and of all that is there already, so that they cover nothing.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        Where the layer is added.
    pictures : numpy.ndarray
        (y, x) or (steps, y, x).
    name : str
        Of the layer.
    image : napari.layers.Image or None
        The image; None puts them at the origin.
    part : float
        Their height in heights of the image.
    metadata : dict, optional
        Of the layer.

    Returns
    -------
    napari.layers.Image
        The new layer.
    """
    steps = pictures.ndim - 2
    placed: dict[str, Any] = {}
    if image is not None:
        (top, left), (bottom, right) = image.extent.world[:, -2:]
        pixel = part * (bottom - top) / pictures.shape[-2]
        gap = 0.03 * (right - left)
        right = max(
            [right, *(other.extent.world[1, -1] for other in viewer.layers if other.units[-1] == image.units[-1])]
        )
        corner = top + pixel / 2, right + gap + pixel / 2
        placed = {
            "scale": (*(1.0,) * steps, pixel, pixel),
            "translate": (*(0.0,) * steps, *corner),
            "units": (*("pixel",) * steps, *image.units[-2:]),
        }
    axes = (*("step",) * steps, *(("y", "x") if image is None else image.axis_labels[-2:]))
    layer: Image = viewer.add_image(pictures, name=name, axis_labels=axes, metadata=metadata, **placed)
    return layer


def add_reconstruction(
    viewer: ViewerModel, decoded: NDArray[np.float32], difference: NDArray[Any], image: Image
) -> tuple[Image, Image]:
    """Show an image as a model understands it right above the image, and under it what was not understood, hidden.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        Where the layers are added.
    decoded : numpy.ndarray
        Of the image's shape, nan where nothing is known.
    difference : array
        The image minus `decoded`.
    image : napari.layers.Image
        The image; it may be gone from the viewer.

    Returns
    -------
    tuple of napari.layers.Image
        Reconstruction, in the image's contrast, and difference.
    """
    last = np.asarray(difference[-1] if decoded.ndim == 3 else difference)
    width = (float(np.nanpercentile(np.abs(last), 99.5)) if np.isfinite(last).any() else 0.0) or 1.0
    limits, placed = image.contrast_limits, {**transformation(image), "metadata": dict(DERIVED)}
    hidden = viewer.add_image(
        difference, name=f"{image.name} difference", contrast_limits=(-width, width), visible=False, **placed
    )
    shown = viewer.add_image(
        decoded, name=f"{image.name} reconstruction", contrast_limits=limits, colormap=image.colormap, **placed
    )
    if image in viewer.layers:
        place = viewer.layers.index(image) + 1
        viewer.layers.move_multiple([viewer.layers.index(hidden), viewer.layers.index(shown)], place)
    return shown, hidden


def image_data(layer: Image) -> Any:
    """Pixels of an image layer at full resolution, still lazy where they were.

    Parameters
    ----------
    layer : napari.layers.Image
        An image or stack, multiscale or not.

    Returns
    -------
    array-like
        (y, x) or (t, y, x).

    Raises
    ------
    InputDataError
        If the layer has colours or more than three axes.
    """
    if layer.rgb:
        raise InputDataError(
            f"'{layer.name}' is a colour image: split it (right click, Split RGB) and choose one channel."
        )
    if layer.ndim not in (2, 3):
        raise InputDataError(
            f"'{layer.name}' has {layer.ndim} axes: choose an image (y, x) or a stack (t, y, x) of it."
        )
    return layer.data[0] if layer.multiscale else layer.data


def pixel_size(layer: Layer, unit: str = "") -> tuple[tuple[float, float], str]:
    """Size of a pixel in the world, where all of the layer's transformation counts.

    Parameters
    ----------
    layer : napari.layers.Layer
        Usually an image.
    unit : str
        Of length, where lengths are wanted in one; the layer's own when empty, or nm where a pixel is less than a
        thousandth of that.

    Returns
    -------
    tuple of float
        Height and width.
    str
        Their unit, such as "nm"; empty where the layer has none, or two that cannot be compared.
    """
    axes = matrix(layer)[:-1, :-1]
    height, width = (float(np.linalg.norm(axes[:, axis])) * layer.units[axis] for axis in (-2, -1))
    if not height.is_compatible_with(width):
        return (float(height.magnitude), float(width.magnitude)), ""
    wanted = width.units
    if width.is_compatible_with("nm") and (unit or width.magnitude < _READABLE):
        wanted = unit or "nm"
    height, width = height.to(wanted), width.to(wanted)
    name = "" if str(width.units) in ("pixel", "dimensionless") else f"{width.units:~}"
    return (float(height.magnitude), float(width.magnitude)), name


def transformation(layer: Layer) -> dict[str, Any]:
    """Place a new layer where another one lies.

    Parameters
    ----------
    layer : napari.layers.Layer
        The layer to lie on.

    Returns
    -------
    dict
        Arguments for the new layer.
    """
    return {
        "scale": layer.scale,
        "translate": layer.translate,
        "rotate": layer.rotate,
        "shear": layer.shear,
        "affine": layer.affine.affine_matrix,
        "units": layer.units,
        "axis_labels": layer.axis_labels,
    }


def matrix(layer: Layer) -> NDArray[np.float64]:
    """Homogeneous matrix from data to world coordinates.

    Parameters
    ----------
    layer : napari.layers.Layer
        Any layer.

    Returns
    -------
    numpy.ndarray
        (ndim + 1, ndim + 1).
    """
    origin = np.asarray(layer.data_to_world((0.0,) * layer.ndim))
    columns = [np.asarray(layer.data_to_world(axis)) - origin for axis in np.eye(layer.ndim)]
    whole = np.eye(layer.ndim + 1)
    whole[:-1] = np.column_stack([*columns, origin])
    return whole


def fits(layer: Image, other: Image) -> bool:
    """Tell whether a layer can be a channel beside another one: the same pixels at the same places.

    Parameters
    ----------
    layer, other : napari.layers.Image
        Any image layers.

    Returns
    -------
    bool
        True where pixels, place in the world and units agree.
    """
    try:
        if image_data(layer).shape != image_data(other).shape or layer.units != other.units:
            return False
    except InputDataError:
        return False
    return bool(np.allclose(np.linalg.solve(matrix(layer), matrix(other)), np.eye(layer.ndim + 1), atol=1e-6))


def image_source(layer: Image, more: Sequence[Image] = ()) -> ImageData:
    """Describe an image layer as the steps know images; its hash is left to `hashed`, which takes time.

    Parameters
    ----------
    layer : napari.layers.Image
        An image or stack.
    more : sequence of napari.layers.Image
        Further channels of it.

    Returns
    -------
    ImageData
        With the size of a pixel in nm where the layer has a unit of length, as a plain ratio where it has none.
        Channels are the first axis, lazy: they are put together where they are read.

    Raises
    ------
    InputDataError
        If the layer has colours or more than three axes, or a channel does not fit it.
    """
    for other in more:
        if not fits(layer, other):
            raise InputDataError(
                f"'{other.name}' is no channel of '{layer.name}': channels have the same number of pixels, at the same "
                "places, in the same units. Untick it under Advanced > More channels, or give it the same scale."
            )
    if more:
        layers = (layer, *more)
        path, part = file_of(layers) or (_UNSAVED / layer.name, "")
        data, names = stacked([image_data(one) for one in layers]), tuple(one.name for one in layers)
        return replace(image_source(layer), data=data, path=path, sha256="", part=part, channel_axis=0, channels=names)
    size, named = pixel_size(layer, "nm")
    unit = named if named == "nm" else None
    known = layer.metadata.get(SOURCE)
    if isinstance(known, ImageData) and known.data is layer.data:
        same = (unit == "nm") == (known.unit == "nm") and np.allclose(size, known.pixel_size or 1.0)
        return known if same else replace(known, pixel_size=size, unit=unit)  # set by hand
    return ImageData(image_data(layer), layer.name, size, unit, Path(layer.source.path or _UNSAVED / layer.name), "")


def source_of(points: Points, image: Image) -> ImageData:
    """Describe what the results of a points layer are of: their image, with all channels that their model sees.

    Parameters
    ----------
    points : napari.layers.Points
        The atoms.
    image : napari.layers.Image
        Their image, which counts where the model sees one alone.

    Returns
    -------
    ImageData
        As `image_source` does.

    Raises
    ------
    InputDataError
        If a channel was removed or does not fit any more.
    """
    main, *more = channels_of(points) or [image]
    return image_source(main, more)


def shows(layer: Image, image: ImageData) -> bool:
    """Tell whether an image layer shows what a file, or a layer that is in no file, holds.

    Parameters
    ----------
    layer : napari.layers.Image
        Any image layer.
    image : ImageData
        The image.

    Returns
    -------
    bool
        False where it cannot be told.
    """
    try:
        own = image_source(layer)
    except InputDataError:
        return False
    if image.path.exists():
        return own.path.absolute() == image.path and _same_pixels(own.data, image.data)
    return own.name == image.name and _same_pixels(own.data, image.data)


def showing(image: ImageData, layers: Iterable[Layer]) -> list[Image]:
    """Find the layers that show an image, one for each of its channels.

    Parameters
    ----------
    image : ImageData
        The image.
    layers : iterable of Layer
        Where they are looked for.

    Returns
    -------
    list of napari.layers.Image
        Empty where one of them is not there.
    """
    images = [layer for layer in layers if isinstance(layer, Image)]
    if image.channel_axis is None:
        return [layer for layer in images if shows(layer, image)][:1]
    grey = [layer for layer in images if not layer.rgb and layer.ndim in (2, 3)]
    found = [[layer for layer in grey if _same_pixels(image_data(layer), pixels)][:1] for pixels in image.data]
    return [layer for one in found for layer in one] if all(found) else []


def hashed(source: ImageData) -> ImageData:
    """Add the hash of the file, or of the pixels where they are in none; both are read, which takes time.

    Parameters
    ----------
    source : ImageData
        From `image_source`.

    Returns
    -------
    ImageData
        Ready for a recipe; its path does not exist where no file holds these pixels, for they may have been exchanged.
    """
    if source.sha256:
        return source
    if _is_in(source.path, source):
        return replace(source, sha256=sha256(source.path))
    digest = hashlib.sha256(f"{source.data.shape} {source.data.dtype}".encode())
    for frame in _frames(source.data):
        digest.update(np.ascontiguousarray(frame).data)
    return replace(source, path=_UNSAVED / source.name, part="", sha256=digest.hexdigest())


def _is_in(path: Path, image: ImageData) -> bool:
    """Whether a file, read as a recipe would read it, holds just the pixels of an image."""
    if not path.exists():
        return False
    try:
        found = load_image(f"{path}::{image.part}" if image.part else path)
    except RVAEError:
        return False
    return found.channel_axis == image.channel_axis and _same_pixels(found.data, image.data)


def _same_pixels(one: Any, other: Any) -> bool:
    if one.shape != other.shape:
        return False
    floats = one.dtype.kind == other.dtype.kind == "f"
    pairs = zip(_frames(one), _frames(other), strict=True)
    return all(np.array_equal(*pair, equal_nan=floats) for pair in pairs)


def _frames(data: Any) -> Any:
    """Lazy stacks, and channels, one image after the other."""
    return [np.asarray(data)] if data.ndim == 2 else (frame for part in data for frame in _frames(part))
