"""ONNX files compute the reference's bits under ONNX Runtime's CPU kernels, at any size."""

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

from pocketlic.export.bundle import write_bundle
from pocketlic.export.errors import ExportError
from pocketlic.export.ort import OnnxRuntimeExecutor
from pocketlic.export.prove import prove
from pocketlic.export.qdq import to_onnx


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_layer_equals_the_reference(make, rule, seed):
    network = make.everything(rule, seed)
    data = to_onnx(network, rule)
    for threads in (1, 2):
        run = OnnxRuntimeExecutor({network.name: data}, threads)
        for size in ((6, 18), (2, 2)):
            inputs = make.random_inputs(network, *size, seed)
            got, expected = run(network, inputs), network.run(inputs)
            assert got.keys() == expected.keys()
            for name in expected:
                assert got[name].dtype == np.int8
                np.testing.assert_array_equal(got[name], expected[name])


def test_a_bundle_is_proved_whole(make, rule, picture, tmp_path):
    bundle = write_bundle(make.small_model(rule), tmp_path / "b", target="onnx-qdq")
    report = prove(bundle, picture(150, 230), 70)
    assert report.files_equal
    assert report.pixels_equal


def test_what_does_not_fit(make):
    network = make.renderer("cpu")
    run = OnnxRuntimeExecutor({network.name: to_onnx(network, "cpu")})
    (x,) = make.random_inputs(network, 4, 4)
    for bad in ([x, x], []):
        with pytest.raises(ExportError, match="do not fit"):
            run(network, bad)
    with pytest.raises(ExportError, match="ONNX Runtime refused"):
        run(network, [x[..., :5]])
    with pytest.raises(ExportError, match="no exported network everything"):
        run(make.everything("cpu"), [x])
    with pytest.raises(ExportError, match="ONNX Runtime refused"):
        OnnxRuntimeExecutor({network.name: b"not onnx"})(network, [x])
