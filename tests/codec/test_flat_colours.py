"""Flat pictures of saturated colours: what no photograph shows has to come out nearly as it went in.

The bound is on the middle of a picture. Near the border the networks see zeros for pixels, and err by more.
"""

import itertools

import numpy as np
import pytest

import pocketlic

CORNERS = list(itertools.product((0, 255), repeat=3))


@pytest.mark.parametrize("quality", [10, 30, 40, 60, 70, 95])
def test_the_corners_of_the_colour_cube(quality):
    for colour in CORNERS:
        picture = np.full((128, 128, 3), colour, np.uint8)
        error = np.abs(pocketlic.decode(pocketlic.encode(picture, quality=quality)).astype(int) - picture)
        # It was up to 100 with weights that had seen photographs alone.
        assert error[48:80, 48:80].max() <= 32, colour
