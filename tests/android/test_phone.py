"""The real adb client, and the profiler, with the app on the emulated phone of tests/profiling/device.

That phone has no Android: its `pm` and `am` are scripts that record their arguments. The tests cover the transfer at
installation, the benchmark's command line, and fetching its JSON. Only a real phone can show that the app starts.
"""

import hashlib
import importlib.util
import json
import subprocess
from pathlib import Path

import jsonschema
from typer.testing import CliRunner

from pocketlic.cli import app
from pocketlic.profiling.device.phone import APP, APP_RESULT

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "profiling" / "device" / "profile.schema.json").read_text())
spec = importlib.util.spec_from_file_location(
    "profiling_phone", ROOT / "tests" / "profiling" / "device" / "test_phone.py"
)
emulated = importlib.util.module_from_spec(spec)
spec.loader.exec_module(emulated)
pytestmark = emulated.pytestmark
adb_server, phone, folder = emulated.adb_server, emulated.phone, emulated.folder


def test_installation_and_the_unattended_benchmark(build, phone, folder, tmp_path):
    apk = build.apk()
    plugged = phone(odpm=False)
    plugged.script("pm", f"""case $1 in
        install) shift; while [ $# -gt 1 ]; do shift; done; cp "$1" /base.apk && echo Success;;
        path) [ -f /base.apk ] && [ $2 = {APP} ] && echo package:/data/app/base.apk;;
    esac""")  # fmt: skip
    done = subprocess.run(
        ["adb", "-s", plugged.serial, "install", "--no-streaming", apk], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, "Success" in done.stdout) == (0, True), done.stderr
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (plugged.root / "base.apk", apk)]
    assert digests[0] == digests[1]

    # The profiler finds the app, starts it, and fetches a profile: here one that was placed on the phone.
    profile = {
        "schema": "pocketlic-profile", "version": 1, "created": "2030-01-01T00:00:00Z", "tools": {},
        "bundle": {"target": "android-assets", "profile": "cpu", "model_id": "0" * 64, "tile": 512,
                   "model_size_mb": 1.0},
        "protocol": {"num_runs": 2, "num_warmup_runs": 3, "threads": 1, "quality": 60.0},
        "devices": [{"name": "x", "kind": "adb", "emulated": True, "properties": {}, "primary_compute_unit": "CPU",
                     "conditions": {s: {"cpu_khz": {}, "temperature_c": {}, "flags": []} for s in ("before", "after")},
                     "flags": [], "runs": []}],
    }  # fmt: skip
    jsonschema.validate(profile, SCHEMA)
    plugged.write("profile.json", json.dumps(profile))
    plugged.script(
        "am",
        f'echo "$@" > /started; mkdir -p $(dirname {APP_RESULT}); cp /profile.json {APP_RESULT}.new; '
        f"mv {APP_RESULT}.new {APP_RESULT}; echo Status: ok",
    )
    out = tmp_path / "out"
    arguments = ["profile", "--device", "adb", "--bundle", folder / "bundle", "--images", folder / "images", "--plic",
                 folder / "build" / "plic", "--out", out, "--runs", 2]  # fmt: skip
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    started = (plugged.root / "started").read_text().strip()
    assert started == f"start -W -n {APP}/.BenchmarkActivity --ei runs 2 --ei threads 1 --es out {APP_RESULT}"
    # The same line as in the app's documentation and in its parser's test.
    source = (ROOT / "android_demo/app/src/main/kotlin/org/pocketlic/demo/BenchmarkActivity.kt").read_text()
    assert f"--es out {APP_RESULT}" in source
    report = json.loads((out / "profile.json").read_text())
    assert report["devices"][0]["app"] == profile
