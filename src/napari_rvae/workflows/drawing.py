"""Small drawings with Pillow, which comes with scikit-image: no plotting library, no display."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_rvae.workflows.steps import beyond_doubt

if TYPE_CHECKING:
    from PIL.Image import Image

PANEL = 640  # side of a panel's picture
_TITLE, _MARGIN, _BAR = 44, 28, 96  # heights and widths around it
_FINE = 2  # drawn so many times larger, then averaged
_INK, _PALE, _PAPER, _PLOT = (40, 40, 46), (150, 150, 158), (255, 255, 255), (247, 247, 249)
_LINE, _SECOND = (38, 110, 180), (226, 116, 44)
# viridis at nine places, and ten well-told-apart colours for classes
_SEQUENTIAL = np.array(
    [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141],
     [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]]
)  # fmt: skip
_CLASSES = np.array(
    [[0, 114, 178], [230, 159, 0], [0, 158, 115], [204, 121, 167], [213, 94, 0],
     [86, 180, 233], [240, 228, 66], [120, 90, 200], [150, 150, 150], [110, 60, 20]]
)  # fmt: skip


def cyclic(phase: NDArray[Any]) -> NDArray[np.uint8]:
    """Give equally bright colours around the circle.

    Parameters
    ----------
    phase : ndarray
        0 to 1, once around.

    Returns
    -------
    ndarray, uint8, (..., 3)
    """
    from skimage.color import lab2rgb

    turn = 2 * np.pi * np.asarray(phase, float)
    lab = np.stack([np.full_like(turn, 74), 40 * np.cos(turn), 40 * np.sin(turn)], -1)
    return np.asarray(np.round(255 * lab2rgb(lab)), np.uint8)


def sequential(level: NDArray[Any]) -> NDArray[np.uint8]:
    """Give colours from dark to bright.

    Parameters
    ----------
    level : ndarray
        0 to 1.

    Returns
    -------
    ndarray, uint8, (..., 3)
    """
    places = np.linspace(0, 1, len(_SEQUENTIAL))
    return np.stack([np.interp(level, places, _SEQUENTIAL[:, channel]) for channel in range(3)], -1).astype(np.uint8)


def colored(table: pd.DataFrame, column: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8], tuple[str, str]]:
    """Colour the values of a column as suits it.

    Parameters
    ----------
    table : DataFrame
        Latent table.
    column : str
        A latent, ``angle``, ``class`` or any other number.

    Returns
    -------
    colors : ndarray, uint8, (n, 3)
        One per row.
    bar : ndarray, uint8, (256, 3)
        The colour bar, from the lowest value up.
    limits : tuple of str
        What stands at its ends.
    """
    values, ramp = table[column].to_numpy(float), np.linspace(0, 1, 256)
    if column == "angle":
        fold = table["symmetry"].to_numpy(float) if "symmetry" in table else np.ones(len(table))
        # where kinds of motif differ in their order, each fills the circle
        phase = np.mod(values * fold / (2 * np.pi), 1)
        period = f"{360 / fold[0]:.0f}°" if len(set(fold)) == 1 else "360°/m"
        return cyclic(phase), cyclic(ramp), ("0°", period)
    if column == "class":
        top = int(np.nanmax(values)) + 1
        bar = _CLASSES[np.minimum((ramp * top).astype(int), top - 1) % len(_CLASSES)]
        return _CLASSES[values.astype(int) % len(_CLASSES)].astype(np.uint8), bar.astype(np.uint8), ("0", f"{top - 1}")
    low, high = np.percentile(_sure(table, values), [2, 98])
    level = (values - low) / (high - low if high > low else 1.0)
    percent = column.startswith("strain_")
    limits = (f"{100 * low:.2g} %", f"{100 * high:.2g} %") if percent else (f"{low:.3g}", f"{high:.3g}")
    return sequential(np.clip(level, 0, 1)), sequential(ramp), limits


def gray(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Stretch an image to 8 bits, a few outliers cut off.

    Parameters
    ----------
    image : ndarray
        Any numbers, missing ones too.

    Returns
    -------
    ndarray, uint8
        Of the same shape.
    """
    image = np.asarray(image, np.float32)
    finite = image[np.isfinite(image)]
    low, high = np.percentile(finite, [0.2, 99.8]) if finite.size else (0.0, 1.0)
    level = (np.nan_to_num(image, nan=float(low)) - low) / (high - low if high > low else 1.0)
    return np.asarray(255 * np.clip(level, 0, 1), np.uint8)


def wide(image: NDArray[Any]) -> bool:
    """Tell whether an image is so wide that each panel needs a row of its own.

    Parameters
    ----------
    image : ndarray, (y, x)
        Any image.

    Returns
    -------
    bool
    """
    return bool(image.shape[1] > 2 * image.shape[0])


def image_panel(
    image: NDArray[Any], atoms: pd.DataFrame, column: str, pixel_size: float | None = None, unit: str | None = None
) -> Image:
    """Draw an image with its atoms coloured by one column.

    Parameters
    ----------
    image : ndarray, (y, x)
        What lies beneath.
    atoms : DataFrame
        ``y``, ``x`` and the column; atoms without a value are small and grey.
    column : str
        What gives the colour.
    pixel_size : float, optional
        Width of a pixel, for the scale bar.
    unit : str, optional
        Of the pixel size.

    Returns
    -------
    PIL.Image.Image
        With title and colour bar, and a scale bar where the width of a pixel is known.
    """
    from PIL import Image, ImageDraw

    from napari_rvae.atoms import called

    box = (3 * PANEL, PANEL) if wide(image) else (PANEL, PANEL)
    zoom = min(box[0] / image.shape[1], box[1] / image.shape[0])
    size = tuple(max(1, round(length * zoom)) for length in image.shape[::-1])
    picture = Image.fromarray(gray(image)).resize((size[0] * _FINE, size[1] * _FINE), Image.Resampling.LANCZOS)
    picture = picture.point(lambda value: value * 0.75).convert("RGB")
    draw = ImageDraw.Draw(picture)
    radius = _FINE * np.clip(0.24 * zoom * np.sqrt(image.size / max(len(atoms), 1)), 1.5, 8)
    known = atoms[column].notna()
    for _, rows, large in ((0, atoms[~known], 0.4), (1, atoms[known], 1.0)):
        colors = colored(rows, column)[0] if large == 1.0 and len(rows) else np.full((len(rows), 3), 150, np.uint8)
        places = (rows[["x", "y"]].to_numpy(float) + 0.5) * zoom * _FINE
        for (x, y), color in zip(places, colors.tolist(), strict=True):
            r = radius * large
            draw.ellipse((x - r, y - r, x + r, y + r), fill=tuple(color))
    panel, pen = _panel(f"{_name(column)} of {known.sum()} {called(atoms)}s", size[0] + _BAR, max(size[1], _BAR))
    panel.paste(picture.reduce(_FINE), (0, _TITLE))
    if pixel_size and unit:
        _scale_bar(pen, size, pixel_size / zoom, unit)
    if known.any():
        _color_bar(panel, pen, size[0], atoms[known], column)
    return panel


def tile_panel(tiles: NDArray[Any], title: str, labels: Sequence[str] = ()) -> Image:
    """Draw small images side by side, all with the same grey values.

    Parameters
    ----------
    tiles : ndarray, (n, h, w)
        The images.
    title : str
        Above them.
    labels : sequence of str
        In the corner of each.

    Returns
    -------
    PIL.Image.Image
        With title.
    """
    from PIL import Image

    panel, pen = _panel(title)
    across = int(np.ceil(np.sqrt(len(tiles))))
    side = PANEL // max(across, 1)
    for number, tile in enumerate(gray(tiles)):
        row, column = divmod(number, across)
        panel.paste(
            Image.fromarray(tile).resize((side - 2, side - 2), Image.Resampling.BICUBIC),
            (column * side, _TITLE + row * side),
        )
        if number < len(labels):
            at = (column * side + 6, _TITLE + row * side + 2)
            pen.text(at, labels[number], fill=(255, 255, 255), font=_font(17), stroke_width=2, stroke_fill=(0, 0, 0))
    return panel


def scatter_panel(table: pd.DataFrame, x: str, y: str, color: str) -> Image:
    """Draw two columns against each other, coloured by a third.

    Parameters
    ----------
    table : DataFrame
        Latent table without missing values in these columns.
    x, y, color : str
        Columns.

    Returns
    -------
    PIL.Image.Image
        With title, axes and colour bar.
    """
    from PIL import ImageDraw

    panel, pen = _panel(f"{_name(x)} and {_name(y)}, coloured by {_name(color)}")
    values = table[[x, y]].to_numpy(float)
    low, high = np.percentile(_sure(table, values), [0.2, 99.8], axis=0)
    low, high = low - 0.06 * (high - low) - 1e-9, high + 0.06 * (high - low) + 1e-9
    inside = np.all((values >= low) & (values <= high), 1)
    fine, draw = _canvas(ImageDraw)
    span = PANEL * _FINE
    radius = _FINE * float(np.clip(60 / np.sqrt(len(values)), 1.2, 4))
    places = (values[inside] - low) / (high - low) * span
    for (across, up), tint in zip(places, colored(table[inside], color)[0].tolist(), strict=True):
        draw.ellipse((across - radius, span - up - radius, across + radius, span - up + radius), fill=tuple(tint))
    panel.paste(fine.reduce(_FINE), (0, _TITLE))
    _color_bar(panel, pen, PANEL, table, color)
    _frame(pen, (f"{low[0]:.2g}", f"{high[0]:.2g}"), (f"{low[1]:.2g}", f"{high[1]:.2g}"))
    return panel


def curve_panel(curve: pd.DataFrame) -> Image:
    """Draw the loss over the epochs, the held-out one too.

    Parameters
    ----------
    curve : DataFrame
        ``epoch``, ``loss``, ``held_out``.

    Returns
    -------
    PIL.Image.Image
        With title, axes and key.
    """
    from PIL import ImageDraw

    panel, pen = _panel("loss in nats, over epochs")
    lines = [
        (name, color, curve[["epoch", name]].astype(float).dropna().to_numpy())
        for name, color in (("loss", _LINE), ("held_out", _SECOND))
    ]
    points = np.concatenate([line for _, _, line in lines])
    if not len(points):
        return panel
    # the first epochs are steep: what comes later must be seen
    low = np.array([0, points[:, 1].min()])
    high = np.array([points[:, 0].max(), np.percentile(points[:, 1], 97)])
    low, high = low - [0, 0.04] * (high - low) - [0, 1e-9], high + 0.06 * (high - low) + 1e-9
    fine, draw = _canvas(ImageDraw)
    span = PANEL * _FINE
    for row, (name, color, line) in enumerate(lines):
        places = (line - low) / (high - low) * span
        if len(places) > 1:
            draw.line([(across, span - up) for across, up in places], fill=color, width=2 * _FINE, joint="curve")
        for across, up in places if len(places) < 40 else places[-1:]:
            draw.ellipse((across - 6, span - up - 6, across + 6, span - up + 6), fill=color)
        if len(places):
            draw.text((span - 300, 30 + 52 * row), name.replace("_", " "), fill=color, font=_font(20 * _FINE))
    panel.paste(fine.reduce(_FINE), (0, _TITLE))
    _frame(pen, (f"{low[0]:.0f}", f"{high[0]:.0f}"), (f"{low[1]:.4g}", f"{high[1]:.4g}"))
    return panel


def page(title: str, detail: str, rows: Sequence[Sequence[Image]]) -> Image:
    """Put panels on a page.

    Parameters
    ----------
    title, detail : str
        At the top, large and small.
    rows : sequence of sequence of Image
        Panels from left to right, rows from top to bottom.

    Returns
    -------
    PIL.Image.Image
        RGB.
    """
    from PIL import Image, ImageDraw

    widths = [sum(panel.width + _MARGIN for panel in row) + _MARGIN for row in rows]
    heights = [max(panel.height for panel in row) + _MARGIN for row in rows]
    head = 92
    sheet = Image.new("RGB", (max(widths), sum(heights) + head), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN, 18), title, fill=_INK, font=_font(32))
    pen.text((_MARGIN, 58), detail, fill=_PALE, font=_font(20))
    top = head
    for row, height in zip(rows, heights, strict=True):
        left = _MARGIN
        for panel in row:
            sheet.paste(panel, (left, top))
            left += panel.width + _MARGIN
        top += height
    return sheet


def _sure(table: pd.DataFrame, values: NDArray[Any]) -> NDArray[Any]:
    """Leave out the values of doubtful atoms, which would take all colours and all room."""
    sure = beyond_doubt(table)
    return values[sure] if sure.any() else values


def _panel(title: str, width: int = PANEL + _BAR, height: int = PANEL) -> tuple[Image, Any]:
    from PIL import Image, ImageDraw

    panel = Image.new("RGB", (width, height + _TITLE + 26), _PAPER)
    pen = ImageDraw.Draw(panel)
    pen.text((0, 8), title, fill=_INK, font=_font(22))
    return panel, pen


def _canvas(drawing: Any) -> tuple[Image, Any]:
    from PIL import Image

    fine = Image.new("RGB", (PANEL * _FINE, PANEL * _FINE), _PLOT)
    return fine, drawing.Draw(fine)


def _color_bar(panel: Image, pen: Any, left: int, table: pd.DataFrame, column: str) -> None:
    """Draw what the colours of a column mean, to the right of a picture."""
    from PIL import Image

    _, bar, limits = colored(table, column)
    length, top, left = panel.height // 2, _TITLE + panel.height // 6, left + 14
    panel.paste(Image.fromarray(np.repeat(bar[::-1, None], 18, 1)).resize((18, length)), (left, top))
    pen.text((left, top - 24), limits[1], fill=_INK, font=_font(17))
    pen.text((left, top + length + 4), limits[0], fill=_INK, font=_font(17))


def _scale_bar(pen: Any, size: Sequence[int], width: float, unit: str) -> None:
    """Draw a bar of 1, 2 or 5 units in the lower left corner of a picture whose pixels have this width."""
    longest = 0.3 * size[0] * width
    decade = 10.0 ** np.floor(np.log10(longest))
    length = decade * max(step for step in (1, 2, 5) if step * decade <= longest * (1 + 1e-9))
    pixels, bottom = round(length / width), _TITLE + size[1]
    text = f"{length:g} {unit}"
    wide_text = pen.textlength(text, _font(20))
    pen.rectangle((8, bottom - 48, 28 + max(pixels, wide_text), bottom - 8), fill=(0, 0, 0))
    pen.rectangle((18, bottom - 18, 18 + pixels, bottom - 14), fill=_PAPER)
    pen.text((18, bottom - 46), text, fill=_PAPER, font=_font(20))


def _frame(pen: Any, across: tuple[str, str], up: tuple[str, str]) -> None:
    """Draw the axes of a plot with the values at their ends."""
    bottom = _TITLE + PANEL
    pen.rectangle((0, _TITLE, PANEL - 1, bottom - 1), outline=_PALE)
    pen.rectangle((1, _TITLE + 1, 5 + pen.textlength(up[1], _font(17)), _TITLE + 26), fill=_PLOT)
    pen.text((2, bottom + 2), across[0], fill=_PALE, font=_font(17))
    pen.text((PANEL - 2, bottom + 2), across[1], fill=_PALE, font=_font(17), anchor="ra")
    pen.text((6, _TITLE + 4), up[1], fill=_PALE, font=_font(17))
    pen.text((6, bottom - 24), up[0], fill=_PALE, font=_font(17))


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _name(column: str) -> str:
    return column.replace("_", " ")
