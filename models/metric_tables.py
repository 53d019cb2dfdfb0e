"""Numbers of quality metrics for their measurement (`profiling.evaluation.metrics`) and the loss (`perceptual`)."""

MS_SSIM_EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the scales, finest first (Wang, Simoncelli, Bovik 2003)."""

# By the authors of NLPD: a coefficient is divided by a constant plus its neighbours' weighted magnitudes.
NLPD_CONSTANTS = (0.0248, 0.0185, 0.0179, 0.0191, 0.0220, 0.2782)
NLPD_NEIGHBOURS = (  # above, left, right, below
    (0.1011, 0.1493, 0.1460, 0.1015),
    (0.0757, 0.1986, 0.1846, 0.0837),
    (0.0477, 0.2138, 0.2243, 0.0467),
    (0.0, 0.2503, 0.2616, 0.0),
    (0.0, 0.2598, 0.2552, 0.0),
    (0.0, 0.2215, 0.0717, 0.0),
)
NLPD_TAPS = (0.05, 0.25, 0.4, 0.25, 0.05)
