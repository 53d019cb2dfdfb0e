"""The float networks, their entropy model and their training."""

from typing import Literal

Tune = Literal["psnr", "visual"]
"""What weights are trained for: RGB's mean squared error, or the eye (`perceptual.visual_bits`)."""
