"""The leaf operations: TFLite's channel order, rounding, and gradients at the bounds."""

import numpy as np
import pytest
import torch

from pocketlic.models.layers import (
    DepthToSpace,
    Depthwise,
    SpaceToDepth,
    Upsample,
    at_quality,
    clamp_ste,
    leaky_gradient,
    relu,
    round_ste,
)
from pocketlic.quantization import network

torch.set_num_threads(1)


def nchw(x):
    return torch.from_numpy(x).permute(2, 0, 1)[None]


def hwc(x):
    return x[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("block", [2, 4, 8])
def test_depth_and_space_change_places_as_in_the_integer_network(block):
    x = np.arange(2 * block * 3 * block * 5, dtype=np.int32).reshape(2 * block, 3 * block, 5)
    deep = SpaceToDepth(block)(nchw(x))
    assert deep.shape == (1, 5 * block * block, 2, 3)
    np.testing.assert_array_equal(hwc(deep), network.space_to_depth(x, block))
    # (dy, dx, c): the channel of one sample, spelt out
    y, x_, c, dy, dx = 1, 2, 3, block - 1, 1
    assert deep[0, (dy * block + dx) * 5 + c, y, x_] == x[y * block + dy, x_ * block + dx, c]
    back = DepthToSpace(block)(deep)
    np.testing.assert_array_equal(hwc(back), x)
    np.testing.assert_array_equal(network.depth_to_space(hwc(deep), block), x)


def test_upsampling_repeats():
    x = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    np.testing.assert_array_equal(hwc(Upsample(4)(nchw(x))), x.repeat(4, 0).repeat(4, 1))


def test_depthwise_pads_with_zeros():
    layer = Depthwise(1, 3)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    assert layer(torch.ones(1, 1, 3, 3))[0, 0].tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]


def test_halves_round_up_in_floats_and_integers():
    halves = np.arange(-5, 6)
    expected = [-2, -2, -1, -1, 0, 0, 1, 1, 2, 2, 3]
    assert round_ste(torch.from_numpy(halves / 2)).tolist() == expected
    assert network.rounding_shift(halves.astype(np.int64), np.ones(11, np.int8)).tolist() == expected


def test_rounding_passes_gradients_on_and_clamping_blocks_those_that_lead_outside():
    x = torch.tensor([0.4, -3.0, -3.0, 9.0, 9.0], requires_grad=True)
    round_ste(x).backward(torch.arange(5.0))
    assert x.grad.tolist() == [0, 1, 2, 3, 4]
    x.grad = None
    y = clamp_ste(x, -1, 1)
    assert y.tolist() == pytest.approx([0.4, -1, -1, 1, 1])
    # A step goes against the gradient: one that leads further out is stopped, one that leads back in is not.
    y.backward(torch.tensor([5.0, 1.0, -1.0, 1.0, -1.0]))
    assert x.grad.tolist() == [5, 0, -1, 1, 0]


def test_the_leak_lets_only_gradients_pass_that_would_switch_a_unit_on():
    x = torch.tensor([2.0, -1.0, -1.0, 0.0], requires_grad=True)
    gradient = torch.tensor([3.0, 4.0, -5.0, -6.0])
    y = relu(x)
    assert y.tolist() == [2, 0, 0, 0]
    y.backward(gradient)
    assert x.grad.tolist() == [3, 0, 0, 0]
    x.grad = None
    leak = torch.tensor(0.5)
    with leaky_gradient(leak):
        y = relu(x)
    leak.fill_(0.1)  # what holds when the gradients are computed
    assert y.tolist() == [2, 0, 0, 0]
    y.backward(gradient)
    assert x.grad.tolist() == pytest.approx([3, 0, -0.5, -0.6])
    x.grad = None
    relu(x).backward(gradient)  # left: the plain gradient again
    assert x.grad.tolist() == [3, 0, 0, 0]


def test_at_quality_is_linear_between_knots_and_keeps_to_their_range():
    knots = torch.tensor([[[1.0, -2.0]], [[3.0, 2.0]], [[-5.0, 0.0]]])  # [3, 1, 2]: at qualities 0, 50 and 100
    values = at_quality(knots, torch.tensor([0.0, 25.0, 50.0, 60.0, 100.0, 110.0, -1.0]))
    expected = [[1, -2], [2, 0], [3, 2], [1.4, 1.6], [-5, 0], [-5, 0], [1, -2]]
    torch.testing.assert_close(values, torch.tensor(expected)[:, None])
