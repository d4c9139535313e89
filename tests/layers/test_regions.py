import numpy as np
import pytest
from napari.layers import Image, Labels, Points, Shapes
from skimage.measure import points_in_poly

from napari_rvae.errors import InputDataError
from napari_rvae.layers import inside, region_mask, shown_frame

PLACES = np.array([[10.0, 10.0], [10.0, 30.0], [30.0, 10.0], [30.0, 30.0]])
SQUARE = np.array([[0, 0], [0, 20], [20, 20], [20, 0]])


@pytest.mark.parametrize(
    ("kind", "corners", "expected"),
    [
        ("rectangle", SQUARE, [1, 0, 0, 0]),
        ("polygon", [[0, 0], [0, 45], [45, 0]], [1, 1, 1, 0]),
        ("ellipse", [[0, 0], [0, 40], [20, 40], [20, 0]], [1, 1, 0, 0]),
        ("ellipse", [[5, 5], [5, 30.5], [30.5, 30.5], [30.5, 5]], [1, 0, 0, 0]),  # a corner lies outside the circle
        ("line", [[0, 0], [40, 40]], [0, 0, 0, 0]),
    ],
)
def test_atoms_inside_a_shape(kind, corners, expected):
    shapes = Shapes([np.array(corners, float)], shape_type=kind)
    assert inside(Points(PLACES), shapes).tolist() == [bool(one) for one in expected]


def test_layers_may_lie_differently():
    points = Points(PLACES, scale=(0.1, 0.1), translate=(5, 5))
    shapes = Shapes([SQUARE / 10 + 5], shape_type="rectangle")
    assert inside(points, shapes).tolist() == [True, False, False, False]


def test_shape_on_one_frame_holds_for_all():
    points = Points(np.column_stack([[0, 1, 2, 3], PLACES]))
    shapes = Shapes([np.column_stack([np.full(4, 2), SQUARE])], shape_type="rectangle")
    assert inside(points, shapes).tolist() == [True, False, False, False]


def test_nothing_is_inside_nothing():
    assert not inside(Points(PLACES), Shapes()).any()
    assert len(inside(Points(np.zeros((0, 2))), Shapes([SQUARE]))) == 0


def test_an_ellipse_without_any_area_holds_nothing():
    flat = np.array([[0, 0], [0, 10], [0, 10], [0, 0]], float)
    assert not inside(Points(PLACES), Shapes([flat], shape_type="ellipse")).any()


def test_pixels_under_shapes_and_labels():
    image = Image(np.zeros((3, 40, 50)), scale=(1, 0.1, 0.1), translate=(0, 5, 5))
    square = Shapes([SQUARE / 10 + 5], shape_type="rectangle")
    mask = region_mask(square, image)
    assert mask.shape == (40, 50)
    assert mask[:20, :20].all()
    assert not mask[22:].any()
    assert not mask[:, 22:].any()
    circle = Shapes([SQUARE / 10 + 5], shape_type="ellipse")
    assert region_mask(circle, image).sum() == pytest.approx(np.pi * 100, rel=0.05)
    coarse = np.zeros((20, 25), np.uint8)
    coarse[:10, :10] = 3
    labels = region_mask(Labels(coarse, scale=(0.2, 0.2), translate=(5.05, 5.05)), image)
    assert labels[:19, :19].all()
    assert labels.sum() == pytest.approx(400, abs=45)
    for nothing in (Shapes([[[0, 0], [5, 5]]], shape_type="line"), Shapes(), Labels(np.zeros((4, 4), int))):
        with pytest.raises(InputDataError, match="covers no pixel"):
            region_mask(nothing, image)


def test_pixels_are_inside_where_their_middles_are():
    rng = np.random.default_rng(0)
    outlines = [rng.uniform(-10, 60, (corners, 2)) for corners in (3, 4, 5, 9)]  # they cross themselves
    y, x = np.mgrid[:40, :50]
    for outline in outlines:
        mask = region_mask(Shapes([outline], shape_type="polygon"), Image(np.zeros((40, 50))))
        expected = points_in_poly(np.column_stack([y.ravel(), x.ravel()]), outline).reshape(mask.shape)
        np.testing.assert_array_equal(mask, expected)


def test_labels_of_a_frame_hold_for_that_frame():
    image = Image(np.zeros((4, 40, 50)), scale=(2, 0.1, 0.1), translate=(6, 5, 5))  # frames at 6, 8, 10, 12
    drawn = np.zeros((3, 20, 25), np.uint8)
    drawn[1, :10, :10], drawn[2, 15:] = 3, 1
    labels = Labels(drawn, scale=(2, 0.2, 0.2), translate=(8, 5.05, 5.05), name="mine")  # frames at 8, 10, 12
    mask = region_mask(labels, image)
    assert mask.shape == (4, 40, 50)
    assert mask.any(axis=(1, 2)).tolist() == [False, False, True, True]
    assert mask[2, :19, :19].all()
    assert mask[2].sum() == pytest.approx(400, abs=45)
    assert not mask[3, :29].any()
    np.testing.assert_array_equal(region_mask(labels, image, frame=3), mask[3])
    with pytest.raises(InputDataError, match="'mine' covers no pixel of 'Image' in frame 1"):
        region_mask(labels, image, frame=1)


def test_labels_without_frames_of_their_own_hold_for_all():
    image = Image(np.zeros((3, 40, 50)))
    drawn = np.eye(40, 50, dtype=np.uint8)
    for data in (drawn, drawn[None]):
        assert region_mask(Labels(data), image).shape == (40, 50)
        assert region_mask(Labels(data), image, frame=2).sum() == 40


def test_frame_that_is_looked_at():
    stack = Image(np.zeros((4, 8, 9)), scale=(2, 1, 1), translate=(6, 0, 0))
    assert [shown_frame(stack, (t, 0, 0)) for t in (0, 6, 9.9, 100)] == [0, 0, 2, 3]
    assert shown_frame(stack, (0, 10, 0, 0)) == 2, "other layers may have more axes"
    assert shown_frame(Image(np.zeros((8, 9))), (3, 0, 0)) is None
