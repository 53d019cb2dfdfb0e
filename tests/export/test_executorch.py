"""ExecuTorch programs compute the reference's bits; XNNPACK runs all of them, and the tests can tell."""

import numpy as np
import pytest

pytest.importorskip("executorch", reason="the extra executorch is not installed")

from pocketlic.export.bundle import open_bundle, write_bundle
from pocketlic.export.errors import ExportError
from pocketlic.export.executorch import ExecuTorchExecutor, require_delegate
from pocketlic.export.operators import operators
from pocketlic.export.prove import prove
from pocketlic.export.pte import FLOAT_EXACT, to_pte
from pocketlic.quantization.errors import ModelError
from pocketlic.quantization.network import IntegerNetwork, Layer, Spec


@pytest.fixture(scope="module")
def programs(make):
    """(rule, backend) -> a network with every kind of layer, and its program."""
    made = {}

    def get(rule, backend):
        if (rule, backend) not in made:
            network = make.everything(rule)
            made[rule, backend] = network, to_pte(network, (6, 18), rule, backend)
        return made[rule, backend]

    return get


@pytest.mark.parametrize("backend", ["xnnpack", "portable"])
def test_every_layer_equals_the_reference(make, programs, rule, backend):
    network, data = programs(rule, backend)
    run = ExecuTorchExecutor({network.name: data}, backend)
    for seed in range(3):
        inputs = make.random_inputs(network, 6, 18, seed)
        expected = network.run(inputs)
        got = run(network, inputs)
        assert got.keys() == expected.keys()
        for name in expected:
            assert got[name].dtype == np.int8
            np.testing.assert_array_equal(got[name], expected[name])


@pytest.mark.parametrize("backend", ["xnnpack", "portable"])
def test_a_bundle_is_proved_in_tiles(make, picture, tmp_path, backend):
    bundle = write_bundle(make.small_model("cpu"), tmp_path / "b", 192, f"executorch-{backend}")
    assert bundle.tile == 192
    assert bundle.manifest["target"] == f"executorch-{backend}"
    assert bundle.manifest["tools"]["executorch"]
    report = prove(open_bundle(tmp_path / "b"), picture(200, 260), 70)
    assert report.files_equal
    assert report.pixels_equal
    for name, rows in operators(bundle).items():
        entry = bundle.manifest["files"][f"{name}.pte"]
        assert sum(row.macs for row in rows) == pytest.approx(entry["mac_per_pixel"] * 192 * 192)
        assert {row.backend for row in rows} == {"XNNPACK" if backend == "xnnpack" else "portable kernels"}


def test_a_program_that_xnnpack_does_not_run_whole_is_an_error(make, programs):
    network, data = programs("cpu", "portable")
    with pytest.raises(ExportError, match=r"does not run all of it.*addmm"):
        require_delegate(data, network.name)
    with pytest.raises(ExportError, match="does not run all of it"):
        ExecuTorchExecutor({network.name: data}, "xnnpack")(network, make.random_inputs(network, 6, 18))


def test_inputs_and_files_that_do_not_fit(make, programs):
    network, data = programs("cpu", "portable")
    run = ExecuTorchExecutor({network.name: data}, "portable")
    first, second = make.random_inputs(network, 6, 18)
    for bad in ([first], [first, second[:5]], [first, second.astype(np.int16)], []):
        with pytest.raises(ExportError, match="do not fit"):
            run(network, bad)
    with pytest.raises(ExportError, match="no exported network synthesis"):
        run(make.renderer("cpu"), [first])
    for backend in ("xnnpack", "portable"):
        with pytest.raises(ExportError, match=r"not an ExecuTorch program|refused"):
            ExecuTorchExecutor({network.name: b"no program at all"}, backend)(network, [first, second])


def test_what_cannot_be_exact_is_refused(make):
    with pytest.raises(ExportError, match="does not divide"):
        to_pte(make.everything("cpu"), (5, 4), "cpu", "portable")
    weight = np.full((2, 600), 126, np.int8)
    bias = np.ones(2, np.int32)
    layer = Layer("pointwise", "y", ("x",), Spec(2, -4), weight=weight, bias=bias, shift=np.full(2, 15, np.int8))
    network = IntegerNetwork("wide", {"x": Spec(600, -4, -128)}, (layer,), ("y",))
    assert FLOAT_EXACT <= 600 * 126 * 256
    with pytest.raises(ExportError, match="float32 cannot hold"):
        to_pte(network, (2, 2), "cpu", "portable")
    with pytest.raises(ModelError, match="tie-free"):
        to_pte(network, (2, 2), "strict", "portable")
