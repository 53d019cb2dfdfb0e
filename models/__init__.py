"""The float networks, their entropy model and their training."""

from typing import Literal

Tune = Literal["psnr", "visual"]
"""What weights are trained for: the squared error of RGB, or the eye (`perceptual.visual_bits`)."""
