"""Marks can be seen on white, and told apart by readers who lack a kind of cone."""

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from figures.drawing import colours
from figures.drawing.colours import COLOURS

NAMES = ("_BLUE", "_RED", "_ORANGE", "_GREEN", "_PINK", "_SKY", "_GREY", "_BROWN", "_ROSE", "_YELLOW")
ALL = {name: getattr(colours, name) for name in NAMES}
FIRST = [*list(ALL.values())[:7], "#000000"]
SEABORN = ("#0173b2", "#d55e00", "#de8f05", "#029e73", "#cc78bc", "#56b4e9", "#949494", "#000000")
# linear RGB as readers without red, green or blue cones see it (Machado, Oliveira, Fernandes 2009, severity 1)
SIGHT = {
    "all cones": np.eye(3),
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]


def linear(colour):
    c = np.array(to_rgb(colour))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def contrast_on_white(colour):
    """WCAG 2: (1 + 0.05) / (luminance + 0.05)."""
    return 1.05 / (float(np.array(TO_XYZ)[1] @ linear(colour)) + 0.05)


def lab(rgb):
    x = np.array(TO_XYZ) @ np.clip(rgb, 0, 1) / (0.95047, 1.0, 1.08883)
    f = np.where(x > 216 / 24389, np.cbrt(x), (24389 / 27 * x + 16) / 116)
    return 116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])


def ciede2000(one, other):
    (L1, a1, b1), (L2, a2, b2) = one, other
    mean = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    G = 0.5 * (1 - np.sqrt(mean**7 / (mean**7 + 25**7)))
    c1, c2 = ((1 + G) * a1 + 1j * b1), ((1 + G) * a2 + 1j * b2)
    h1, h2 = (np.degrees(np.angle(c)) % 360 for c in (c1, c2))
    C1, C2 = abs(c1), abs(c2)
    turn = 0.0 if C1 * C2 == 0 else (h2 - h1 + 180) % 360 - 180
    dL, dC, dH = L2 - L1, C2 - C1, 2 * np.sqrt(C1 * C2) * np.sin(np.radians(turn / 2))
    L, C, h = (L1 + L2) / 2, (C1 + C2) / 2, h1 + h2 if C1 * C2 == 0 else (h1 + turn / 2) % 360
    T = 1 - 0.17 * np.cos(np.radians(h - 30)) + 0.24 * np.cos(np.radians(2 * h))
    T += 0.32 * np.cos(np.radians(3 * h + 6)) - 0.2 * np.cos(np.radians(4 * h - 63))
    S_L = 1 + 0.015 * (L - 50) ** 2 / np.sqrt(20 + (L - 50) ** 2)
    x, y, z = dL / S_L, dC / (1 + 0.045 * C), dH / (1 + 0.015 * C * T)
    R = -2 * np.sqrt(C**7 / (C**7 + 25**7)) * np.sin(np.radians(60 * np.exp(-(((h - 275) / 25) ** 2))))
    return float(np.sqrt(x * x + y * y + z * z + R * y * z))


def least_distance(chosen):
    return min(
        ciede2000(lab(np.array(see) @ linear(a)), lab(np.array(see) @ linear(b)))
        for see in SIGHT.values()
        for a, b in itertools.combinations(chosen, 2)
    )


def test_the_distance_is_that_of_published_pairs():
    """Sharma, Wu, Dalal 2005, table 1, pairs 1, 7, 13 and 19."""
    for one, other, distance in (
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
        ((50, 2.5, 0), (61, -5, 29), 22.8977),
    ):
        assert ciede2000(one, other) == pytest.approx(distance, abs=2e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_mark_has_contrast_on_white(name):
    assert contrast_on_white(ALL[name]) >= 3


def test_colours_with_a_meaning_are_told_apart():
    assert set(COLOURS.values()) - {"black"} <= set(FIRST)
    assert least_distance(FIRST) >= 13
    assert least_distance(ALL.values()) >= 10
    assert least_distance(SEABORN) < 10, "the control: the palette that these hues come from"


def test_the_control_sees_a_mark_that_is_too_pale():
    assert contrast_on_white("#56b4e9") < 3 < contrast_on_white("#000000") < 21.01
