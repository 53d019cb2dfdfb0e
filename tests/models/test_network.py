"""The float codec and its entropy model, and where float and integer code must agree."""

import numpy as np
import pytest
import torch

from pocketlic.codec import codec as reference
from pocketlic.models import entropy, network

torch.set_num_threads(1)


@pytest.mark.parametrize("spread", range(len(entropy.SPREADS)))
def test_tables_are_distributions(spread):
    weights = np.tile(np.arange(len(entropy.SPREADS)) == spread, (entropy.TABLES, 1)).astype(float)
    radius, freq = entropy.mixture_tables(weights)
    assert (radius.dtype, freq.dtype, radius.shape) == (np.uint16, np.uint16, (entropy.TABLES,))
    rows = np.split(freq.astype(np.int64), np.cumsum(2 * radius.astype(np.int64) + 2)[:-1])
    for row, r in zip(rows, radius, strict=True):
        assert len(row) == 2 * r + 2
        assert row.sum() == 65536
        assert row.min() >= 1
        body = row[:-1]
        np.testing.assert_array_equal(body, body[::-1])
        assert body[r] >= body.max() - 2


@pytest.mark.parametrize("row", [0, 9, 21, 40, 63])
def test_coding_a_row_with_its_table_costs_its_entropy(row):
    """Against symbol_bits, which training minimises; the excess is what quantizing the table costs."""
    radius, freq = entropy.mixture_tables()
    start = int((2 * radius[:row].astype(np.int64) + 2).sum())
    r = int(radius[row])
    symbols = torch.arange(-r, r + 1.0)
    ideal = entropy.symbol_bits(symbols, torch.tensor(float(row)))
    mass = torch.exp2(-ideal)
    assert mass.sum() == pytest.approx(1, abs=1e-3)
    cost = 16 - np.log2(freq[start : start + 2 * r + 1].astype(np.float64))
    # No frequency is 0, so the ends of a table are flat, however rare.
    flat = (2 * r + 2) / 65536
    assert -0.002 < (mass.numpy() * (cost - ideal.numpy())).sum() < 0.002 - np.log2(1 - flat)


def test_a_mixture_fitted_to_symbols_codes_them_nearly_at_their_entropy():
    """Laplacian symbols, which a Gaussian codes badly. The last rows have no symbols and follow the others."""
    rng = np.random.default_rng(0)
    counts = np.zeros((entropy.TABLES, 200), np.int64)
    scales = entropy.table_scales()
    for row in range(50):
        symbols = np.abs(np.round(rng.laplace(0, scales[row] / np.sqrt(2), 100_000))).astype(int)
        counts[row] = np.bincount(np.minimum(symbols, 199), minlength=200)
    fitted = entropy.mixture_tables(entropy.fit_mixture(counts))
    gaussian = entropy.mixture_tables(np.tile(np.array(entropy.SPREADS) == 1.0, (entropy.TABLES, 1)).astype(float))

    def bits(tables, row):
        radius, freq = tables
        start, r = int((2 * radius[:row].astype(np.int64) + 2).sum()), int(radius[row])
        size = min(r + 1, 200)  # of both signs, one is as likely as the other
        return (counts[row, :size] * (16 - np.log2(freq[start + r : start + r + size].astype(float)))).sum()

    for row in (12, 20, 30):
        share = counts[row] / counts[row].sum()
        share = share[share > 0]
        entropy_bits = -(share * np.log2(share)).sum() + (1 - share[0])  # and the sign
        assert bits(fitted, row) < 1.02 * 100_000 * entropy_bits
        assert bits(fitted, row) < 0.99 * bits(gaussian, row)
    shares = entropy.fit_mixture(counts)
    np.testing.assert_allclose(shares.sum(1), 1)
    np.testing.assert_allclose(shares[60:], shares[60:61].repeat(4, 0))
    assert shares[60] @ entropy.SPREADS == pytest.approx(shares[30] @ entropy.SPREADS, rel=0.1)


def test_rows_are_log_spaced_scales():
    scale = torch.tensor([entropy.SCALE_MIN, entropy.SCALE_MAX, 1e-9, 1e9])
    assert entropy.index_from_log2_scale(scale.log2()).tolist() == pytest.approx([0, 63, 0, 63], abs=1e-3)


def test_checkerboards_agree():
    ours = network.anchor_mask(5, 6)[0].permute(1, 2, 0).numpy()
    theirs = reference.anchor_mask(5, 6, network.LATENTS)
    np.testing.assert_array_equal(ours, theirs)
    assert theirs[0, 0, 0]
    assert not theirs[0, 1, 0]
    assert theirs[0, 0, network.LATENTS // 2 - 1]
    assert not theirs[0, 0, network.LATENTS // 2]


@pytest.mark.parametrize("quality", [0, 3.07, 10, 49.99, 50, 99.5, 100])
def test_knots_are_interpolated_alike(quality):
    rng = np.random.default_rng(0)
    knots = rng.integers(-5000, 5000, (network.KNOTS, 7)).astype(np.int32)
    floats = network.Gains.at(torch.from_numpy(knots).double(), torch.tensor([quality], dtype=torch.float64))
    integers = reference.interpolate(knots, round(100 * quality))
    difference = floats[0, :, 0, 0].numpy() - integers
    assert (difference > -1e-6).all()
    assert (difference < 1).all()


def test_forward_pass_at_odd_sizes_and_each_quality():
    torch.manual_seed(0)
    codec = network.FloatCodec().eval()
    image = network.pad_to_stride(torch.rand(2, 3, 65, 40))
    assert image.shape == (2, 3, 128, 64)
    assert (image[:, :, 65:] == image[:, :, 64:65]).all()
    with torch.no_grad():
        low, high = (codec(image, torch.tensor([q, q])) for q in (5.0, 95.0))
        again = codec(image, torch.tensor([95.0, 95.0]))
    assert low.reconstruction.shape == image.shape
    assert low.latent_bits.shape == low.hyper_bits.shape == (2,)
    assert (low.latent_bits < high.latent_bits).all()
    assert torch.equal(high.reconstruction, again.reconstruction)  # nothing is random when not training


def test_every_parameter_is_trained():
    torch.manual_seed(0)
    codec = network.FloatCodec()
    coded = codec(torch.rand(1, 3, 64, 128), torch.tensor([55.0]))
    (coded.reconstruction.square().mean() + coded.latent_bits.sum() + coded.hyper_bits.sum()).backward()
    assert [name for name, p in codec.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in codec.parameters())
