"""A run tile by tile equals a run on the whole picture."""

import numpy as np
import pytest

from pocketlic.export.errors import ExportError
from pocketlic.export.litert import LiteRTExecutor
from pocketlic.export.tflite import model_to_tflite
from pocketlic.export.tiles import (
    PIXELS_PER_CELL,
    TiledExecutor,
    alignment,
    check_tile,
    halo,
    least_tile,
    run_tiled,
    spans,
)


def test_halo_of_networks_like_the_codecs(make):
    networks = make.small_model("cpu").networks
    assert {name: (halo(n), alignment(n)) for name, n in networks.items()} == {
        "analysis": (48, 16),  # 5x5 at 1/8 is 16 pixels, 5x5 at 1/16 is 32
        "hyper_analysis": (0, 4),
        "hyper_synthesis": (1, 1),  # 3x3 at 1/32, in cells of 64 pixels
        "context": (2, 1),
        "synthesis": (2, 1),
    }
    assert least_tile(make.small_model("cpu")) == 192


@pytest.mark.parametrize("length", range(5, 40))
@pytest.mark.parametrize(("tile", "margin"), [(5, 2), (5, 0), (8, 3)])
def test_spans_cover_once_and_stay_clear_of_inner_borders(length, tile, margin):
    if length < tile:
        return
    end = 0
    for start, first, last in spans(length, tile, margin):
        assert 0 <= start <= length - tile
        assert first == end < last <= start + tile
        assert first == 0 or first - start >= margin
        assert last == length or start + tile - last >= margin
        end = last
    assert end == length


@pytest.mark.parametrize("seed", range(4))
def test_tiled_equals_whole(make, rule, seed):
    rng = np.random.default_rng(seed)
    for name, network in make.small_model(rule, seed).networks.items():
        margin, align = halo(network), alignment(network)
        tile = 2 * margin + align * int(rng.integers(1, 3))
        height, width = (tile + align * int(n) for n in rng.integers(0, 2 + 40 // align, 2))
        inputs = make.random_inputs(network, height, width, seed)
        seen = set()

        def run(net, xs, seen=seen):
            seen.add(xs[0].shape[:2])
            return net.run(xs)

        tiled, whole = run_tiled(run, network, inputs, tile), network.run(inputs)
        assert seen == {(tile, tile)}
        assert tiled.keys() == whole.keys()
        for output in whole:
            np.testing.assert_array_equal(tiled[output], whole[output], err_msg=name)


def test_a_smaller_halo_would_show(make, monkeypatch):
    network = make.renderer("cpu")
    inputs = make.random_inputs(network, 12, 12)
    monkeypatch.setattr("pocketlic.export.tiles.halo", lambda _: 1)
    tiled = run_tiled(lambda n, xs: n.run(xs), network, inputs, 6)
    assert any((tiled[k] != v).any() for k, v in network.run(inputs).items())


@pytest.mark.parametrize(("height", "width"), [(192, 192), (256, 448), (64, 320), (320, 128)])
def test_fixed_shape_networks_under_litert(make, rule, height, width):
    """Also pictures smaller than a tile, which run on the reference."""
    model = make.small_model(rule)
    run = TiledExecutor(LiteRTExecutor(model_to_tflite(model, 192)), 192)
    for name, network in model.networks.items():
        cell = PIXELS_PER_CELL[name]
        inputs = make.random_inputs(network, height // cell, width // cell)
        tiled, whole = run(network, inputs), network.run(inputs)
        for output in whole:
            np.testing.assert_array_equal(tiled[output], whole[output], err_msg=name)


@pytest.mark.parametrize("tile", [0, -64, 63, 128, 200])
def test_tiles_that_do_not_fit(make, tile):
    with pytest.raises(ExportError, match="at least 192"):
        check_tile(make.small_model("cpu"), tile)


def test_a_tile_smaller_than_its_halo(make):
    network = make.renderer("cpu")
    with pytest.raises(ExportError, match="halo of 2"):
        run_tiled(lambda n, xs: n.run(xs), network, make.random_inputs(network, 9, 9), 4)
