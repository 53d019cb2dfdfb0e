"""The output of other tools, as they print it."""

import pytest

from pocketlic.profiling.device.benchmark_model import read_benchmark_model

BENCHMARK_MODEL = """STARTING!
Num threads: [4]
The input model file size (MB): 0.274608
Initialized session in 12.187ms.
count=3 first=29042 curr=25088 min=24706 max=29042 avg=26280.3 std=1956

count=20 first=24902 curr=25091 min=24806 max=25447 avg=2.49684e+04 std=144 p5=24810 median=24950 p95=25440
Inference timings in us: Init: 12187, First inference: 29042, Warmup (avg): 26280.3, Inference (avg): 24968.4
Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE.
Memory footprint delta from the start of the tool (MB): init=4.25 overall=46.5
"""


def test_benchmark_model():
    result = read_benchmark_model(BENCHMARK_MODEL)
    latency = result["latency_metrics"]
    assert (latency["init_ms"], latency["first_inference_ms"], round(latency["avg_ms"], 6)) == (12.187, 29.042, 24.9684)
    assert (latency["median_ms"], latency["min_ms"], latency["stddev_ms"]) == (24.95, 24.806, 0.144)
    assert result["misc_metrics"] == {"num_warmup_runs": 3, "num_runs": 20, "model_size_mb": 0.274608}
    assert result["memory_metrics"] == {"init_footprint_kb": 4352, "overall_footprint_kb": 47616}
    with pytest.raises(ValueError, match="no line"):
        read_benchmark_model("Segmentation fault")


def test_operators_of_benchmark_model():
    """The last of its tables in the order of execution; others, of the start or sorted, are not it."""
    head = "\t".join(
        ("", "  [node type]", "[first]", " [avg ms]", "[%]", "[cdf%]", "[mem KB]", "[times called]", "[Name]")
    )

    def table(title, *rows):
        lines = ["\t".join(("", f"   {kind}", "9.0", ms, "50%", "50%", "0.0", "1", f"[x]:{kind}")) for kind, ms in rows]
        return "\n".join([f"============ {title} ============", head, *lines, ""])

    text = "\n".join(
        [
            BENCHMARK_MODEL,
            table("Run Order", ("ModifyGraphWithDelegate", "4.0")),
            table("Run Order", ("Convolution (NHWC, QC8) IGEMM", "0.125"), ("ADD", "0.5")),
            table("Top by Computation Time", ("ADD", "0.5")),
            "Number of nodes executed: 2",
        ]
    )
    assert read_benchmark_model(text)["operators"] == [
        {"operator": "Convolution (NHWC, QC8) IGEMM", "avg_ms": 0.125},
        {"operator": "ADD", "avg_ms": 0.5},
    ]
    assert "operators" not in read_benchmark_model(BENCHMARK_MODEL)
