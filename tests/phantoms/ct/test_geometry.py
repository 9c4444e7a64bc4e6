"""Shapes against their closed forms; random fields that are the same on slices and at points."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import gamma

from ctrestore.phantoms.ct.shapes import (
    Canvas,
    Tube,
    Waves,
    capsule,
    ellipse,
    ellipsoid,
    overlap,
    segment_distance,
    union,
)

PIXEL_MM = 0.8
AXIS = ((np.arange(160) - 79.5) * PIXEL_MM).astype(np.float32)
X, Y = AXIS[None, :], AXIS[:, None]


def painted_area_mm2(distance):
    canvas = Canvas(X, Y, 0.0)
    canvas.paint(distance, 0.0)
    return float((canvas.hu / 1000 + 1).sum()) * PIXEL_MM**2


@pytest.mark.parametrize("angle_deg", [0.0, 30.0, 90.0])
def test_an_ellipse_covers_pi_times_its_half_axes_however_it_is_turned(angle_deg):
    distance = ellipse(X, Y, centre=(5, -7), radii=(40, 18), angle_deg=angle_deg)
    assert painted_area_mm2(distance) == pytest.approx(np.pi * 40 * 18, rel=2e-3)  # pixels at the edge count by share


def test_a_circle_gives_exact_distances():
    distance = ellipse(X, Y, centre=(0, 0), radii=(20, 20))
    np.testing.assert_allclose(distance, np.hypot(X, Y) - 20, atol=1e-3)


@pytest.mark.parametrize("power", [2.5, 4.0])
def test_a_squarer_ellipse_covers_lames_area(power):
    area = 4 * 30 * 20 * gamma(1 + 1 / power) ** 2 / gamma(1 + 2 / power)
    assert painted_area_mm2(ellipse(X, Y, centre=(0, 0), radii=(30, 20), power=power)) == pytest.approx(area, rel=3e-3)


def test_the_angle_turns_x_towards_y():
    tip = np.deg2rad(30)
    on_tip = ellipse(
        np.array([40 * np.cos(tip)]), np.array([40 * np.sin(tip)]), centre=(0, 0), radii=(40, 10), angle_deg=30
    )
    assert on_tip[0] == pytest.approx(0, abs=1e-3)


def test_the_cuts_of_a_ball_are_discs_of_pythagoras():
    for z, radius in ((0, 25), (15, 20), (24, 7)):
        distance = ellipsoid(X, Y, z, centre=(0, 0, 0), radii=(25, 25, 25))
        assert painted_area_mm2(distance) == pytest.approx(np.pi * radius**2, rel=5e-3)
    assert ellipsoid(X, Y, 26, centre=(0, 0, 0), radii=(25, 25, 25)).min() > 0


def test_a_stroke_covers_its_rectangle_and_two_half_discs():
    distance = capsule(X, Y, start=(-20, -10), end=(10, 30), radius=6)
    assert painted_area_mm2(distance) == pytest.approx(50 * 12 + np.pi * 36, rel=2e-3)


def test_a_pipe_cut_straight_is_a_disc_and_cut_at_45_degrees_an_ellipse():
    straight = Tube.through([(3, 4, -40), (3, 4, 40)], 9.0)
    slanted = Tube.through([(-40, 0, -40), (40, 0, 40)], 9.0)
    assert painted_area_mm2(segment_distance(X, Y, 0.0, straight.segments)) == pytest.approx(np.pi * 81, rel=5e-3)
    area = painted_area_mm2(segment_distance(X, Y, 0.0, slanted.segments))
    assert area == pytest.approx(np.pi * 81 * np.sqrt(2), rel=0.02)  # distances are in space: the edge is softer


def test_a_pipe_outside_the_slice_or_the_picture_leaves_no_trace():
    above, beside = Tube.through([(0, 0, 30), (0, 0, 60)], 5.0), Tube.through([(300, 0, -9), (300, 0, 9)], 5.0)
    for tube in (above, beside):
        assert segment_distance(X, Y, 0.0, tube.segments).min() > 0


def test_union_and_intersection_add_up_to_both():
    a, b = ellipse(X, Y, centre=(-8, 0), radii=(20, 20)), ellipse(X, Y, centre=(12, 5), radii=(15, 25))
    both = painted_area_mm2(a) + painted_area_mm2(b)
    assert painted_area_mm2(union(a, b)) + painted_area_mm2(overlap(a, b)) == pytest.approx(both, rel=1e-5)
    assert painted_area_mm2(union(a, b, blend_mm=8)) > painted_area_mm2(union(a, b))  # the groove is filled


def test_later_paint_covers_earlier_paint_and_sets_the_label():
    canvas = Canvas(X, Y, 0.0)
    canvas.paint(ellipse(X, Y, centre=(0, 0), radii=(40, 40)), -100.0, 1)
    canvas.paint(ellipse(X, Y, centre=(0, 0), radii=(10, 10)), 50.0, 2)
    assert canvas.hu[80, 80] == 50 and canvas.labels[80, 80] == 2
    assert canvas.hu[80, 115] == -100 and canvas.labels[80, 115] == 1
    assert canvas.hu[0, 0] == -1000 and canvas.labels[0, 0] == 0


def test_a_field_is_the_same_on_a_slice_and_at_its_points():
    waves = Waves(np.random.default_rng(1), wavelength_mm=(10, 40))
    on_slice = waves(X, Y, 7.0)
    xx, yy = np.meshgrid(AXIS, AXIS)
    np.testing.assert_allclose(on_slice, waves(xx, yy, np.full_like(xx, 7.0)), atol=2e-4)


def test_a_field_has_mean_0_and_deviation_1_over_many_wavelengths():
    values = [Waves(np.random.default_rng(seed), wavelength_mm=(4, 8))(X, Y, 0.0) for seed in range(20)]
    assert np.mean(values) == pytest.approx(0, abs=0.02)
    assert np.std(values) == pytest.approx(1, abs=0.03)
