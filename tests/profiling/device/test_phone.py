"""The whole profile against an emulated phone: the real adb client, a small adbd, Arm programs under qemu.

The tests show that transfers to and from the phone work and that faults end in one line. Times are an emulator's, and
the report says so.
"""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pocketlic.cli import app
from pocketlic.codec import format as plic
from pocketlic.codec.codec import Codec
from pocketlic.export.bundle import open_bundle, write_bundle
from pocketlic.profiling.conformance.matrix import Unavailable, make_arm64
from pocketlic.profiling.device.compare import compare
from pocketlic.profiling.device.devices import AdbDevice, DeviceError, find_devices
from pocketlic.profiling.device.phone import APP, APP_RESULT, COUNTER, build_plic
from pocketlic.profiling.device.report import read_report

HERE = Path(__file__).parent / "phone"
ROOT = Path(__file__).parents[3]
NEEDED = ("adb", "qemu-aarch64-static", "aarch64-linux-gnu-g++", "unshare", "chroot")
ODPM_WATTS = 2.0

missing = [name for name in NEEDED if shutil.which(name) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"the emulated phone needs {', '.join(missing)}")

PROPERTIES = {
    "ro.product.manufacturer": "Nobody", "ro.product.model": "Emulated", "ro.product.cpu.abi": "arm64-v8a",
    "ro.build.version.release": "16", "ro.kernel.qemu": "1",
}  # fmt: skip


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Phone:
    """An emulated phone: a folder, and the process that serves it to adb at `serial`."""

    def __init__(self, folder, small_kb=0, odpm=True, unauthorized=False, plugin=None, arm64=""):
        self.root = folder
        self.write("system/bin/sh", None)
        self.script("getprop", "case $1 in " + " ".join(f"{k}) echo '{v}';;" for k, v in PROPERTIES.items()) + " esac")
        battery = {"status": "Discharging", "current_now": "-410000", "voltage_now": "3980000", "capacity": "81",
                   "temp": "304"}  # fmt: skip
        for name, value in battery.items():
            self.write(f"sys/class/power_supply/battery/{name}", value + "\n")
        for cpu in range(2):
            for name in ("scaling_cur_freq", "scaling_max_freq", "cpuinfo_max_freq"):
                self.write(f"sys/devices/system/cpu/cpu{cpu}/cpufreq/{name}", "2400000\n")
        self.write("sys/class/thermal/thermal_zone0/type", "skin-therm\n")
        self.write("sys/class/thermal/thermal_zone0/temp", "31250\n")
        for name in ("possible", "present"):  # without them, LiteRT drops XNNPACK
            self.write(f"sys/devices/system/cpu/{name}", "0-1\n")
        if plugin is not None:
            shutil.copyfile(plugin, self.write("instructions.so", ""))
            self.script(
                "simpleperf", f'shift {len(COUNTER) - 1}; exec qemu-aarch64 -plugin /instructions.so -d plugin "$@"'
            )
        self.stopped = threading.Event()
        if odpm:
            self.tick(time.monotonic())
            threading.Thread(target=self.count, daemon=True).start()
        port = free_port()
        self.serial = f"127.0.0.1:{port}"
        self.process = subprocess.Popen(
            ["sh", HERE / "phone.sh", self.root, str(small_kb), arm64, sys.executable, HERE / "adbd.py", str(port),
             self.root, *(["--unauthorized"] if unauthorized else [])],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        if self.process.stdout.readline() != "ready\n":
            pytest.skip(f"no emulated phone on this machine: {self.process.stderr.read().strip()[-200:]}")
        subprocess.run(["adb", "connect", self.serial], check=True, capture_output=True)

    def write(self, name, content):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.symlink_to("/bin/sh")
        else:
            path.write_text(content)
        return path

    def script(self, name, line):
        self.write(f"system/bin/{name}", f"#!/system/bin/sh\n{line}\n").chmod(0o755)

    def tick(self, start):
        ms = int(1e3 * (time.monotonic() - start))
        microjoules = int(1e3 * ms * ODPM_WATTS / 2)
        text = f"t={ms}\nCH0(T={ms})[S2M_VDD_CPUCL2], {microjoules}\nCH1(T={ms})[S5M_VDD_INT], {microjoules}\n"
        folder = self.root / "sys/bus/iio/devices/iio:device0"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "new").write_text(text)
        (folder / "new").rename(folder / "energy_value")

    def count(self):
        start = time.monotonic()
        while not self.stopped.wait(0.005):
            self.tick(start)

    def record(self, trace_pb2):
        """Keep a trace of one rail that takes 2 W."""
        start = time.monotonic()

        def loop():
            while not self.stopped.wait(0.02):
                ms = int(1e3 * (time.monotonic() - start)) + 1
                trace = trace_pb2.Trace()
                rails = trace.packet.add().power_rails
                rails.rail_descriptor.add(index=0, rail_name="S2M_VDD_CPUCL2")
                rails.energy_data.add(index=0, timestamp_ms=ms, energy=int(1e3 * ms * ODPM_WATTS))
                self.write("trace.new", "").write_bytes(trace.SerializeToString())
                (self.root / "trace.new").rename(self.root / "trace")

        threading.Thread(target=loop, daemon=True).start()
        self.script("perfetto", "cat > /config; mkdir -p /data/misc/perfetto-traces; cat /trace > $5")

    def unplug(self):
        self.stopped.set()
        self.process.kill()
        self.process.wait()
        subprocess.run(["adb", "disconnect", self.serial], check=False, capture_output=True)


@pytest.fixture(scope="module", autouse=True)
def adb_server(tmp_path_factory):
    """A private adb server, with its own keys and port."""
    before = dict(os.environ)
    home = tmp_path_factory.mktemp("adb")
    os.environ.update(ANDROID_ADB_SERVER_PORT=str(free_port()), HOME=str(home), TMPDIR=str(home))
    subprocess.run(["adb", "start-server"], check=True, capture_output=True)
    yield
    subprocess.run(["adb", "kill-server"], check=False, capture_output=True)
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def phone(tmp_path):
    """Makes phones, and disconnects them at the end."""
    phones = []

    def plug(**options):
        phones.append(Phone(tmp_path / f"phone{len(phones)}", **options))
        return phones[-1]

    yield plug
    for one in phones:
        one.unplug()


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    """What counts instructions."""
    emulator, compiler = shutil.which("qemu-aarch64"), shutil.which("cc")
    if emulator is None or compiler is None:
        pytest.skip("counting instructions needs qemu-aarch64, which loads plugins, and cc")
    built = tmp_path_factory.mktemp("plugin") / "instructions.so"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", HERE / "instructions.c", "-o", built], check=True)
    return built


@pytest.fixture(scope="session")
def arm64():
    """Debian for Arm with LiteRT's wheel: kept where POCKETLIC_ARM64 says, or in build/."""
    root = Path(os.environ.get("POCKETLIC_ARM64", ROOT / "build" / "arm64"))
    try:
        make_arm64(root)
    except Unavailable as error:
        pytest.skip(str(error))
    return root


@pytest.fixture(scope="module")
def folder(make, picture, tmp_path_factory):
    """A bundle, a folder with a picture, and the native core for Arm."""
    folder = tmp_path_factory.mktemp("arm")
    write_bundle(make.small_model("cpu"), folder / "bundle")
    (folder / "images").mkdir()
    Image.fromarray(picture(80, 112)).save(folder / "images" / "one.png")
    build_plic("arm64-v8a", folder / "build")
    return folder


@pytest.fixture
def run(folder, tmp_path):
    def profile(*args):
        options = {"--bundle": folder / "bundle", "--images": folder / "images", "--plic": folder / "build" / "plic",
                   "--out": tmp_path / "out", "--runs": 2}  # fmt: skip
        return CliRunner().invoke(app, ["profile", *(str(a) for pair in options.items() for a in pair), *args])

    return profile


def test_profile_of_an_emulated_phone(phone, run, tmp_path):
    serial = phone().serial
    result = run("--device", "adb")
    assert result.exit_code == 0, result.output
    (device,) = read_report(tmp_path / "out" / "profile.json")["devices"]
    assert (device["name"], device["kind"], device["emulated"]) == (serial, "adb", True)
    assert any("emulated" in flag for flag in device["flags"])
    assert device["properties"]["model"] == "Emulated"
    assert device["conditions"]["before"]["temperature_c"] == {"skin-therm": 31.25, "battery": 30.4}
    assert device["conditions"]["after"]["cpu_khz"] == {"0": 2_400_000, "1": 2_400_000}
    (one,) = device["runs"]
    assert one["determinism"]["equal"]  # Arm code's symbols and pixels are the reference's
    assert [s["stage"] for s in one["determinism"]["stages"]] == ["file", "symbols", "pixels"]
    assert set(one["latency_metrics"]) == {"encode", "decode"}
    assert set(one["latency_metrics"]["decode"]["stages"]) == {"entropy_decoding", "networks"}
    assert "simpleperf does not count here" in one["instructions"]["reason"]
    energy = one["energy"]["decode"]
    assert energy["meter"] == "odpm"
    assert energy["total_mj"] == pytest.approx(1e3 * ODPM_WATTS * energy["window_s"], rel=0.01)
    assert abs(energy["net_mj"]) < 0.1 * energy["total_mj"]  # a constant power is all idle
    assert "emulated" in (tmp_path / "out" / "profile.html").read_text()


def test_instructions_are_counted_where_times_mean_nothing(phone, plugin, run, tmp_path):
    """Instructions replace times in the reports, are the same in every run, and are what `compare` judges."""
    phone(odpm=False, plugin=plugin)
    counts = []
    for out in ("first", "again"):
        result = run("--device", "adb", "--out", str(tmp_path / out))
        assert result.exit_code == 0, result.output
        (one,) = read_report(tmp_path / out / "profile.json")["devices"][0]["runs"]
        counts.append(one["instructions"])
    for side in ("encode", "decode"):  # printing the time of a run takes a few more or less
        assert counts[0][side] == pytest.approx(counts[1][side], rel=1e-3)
    pixels = one["width"] * one["height"]
    assert all(pixels * 100 < counts[0][side] < pixels * 100_000 for side in ("encode", "decode"))
    shown = f"| one | decode | {counts[0]['decode'] / 1e6:.2f} million"
    assert shown in (tmp_path / "again" / "profile.md").read_text()
    assert "instructions per pixel" in (tmp_path / "again" / "profile.html").read_text()
    assert "median ms" not in result.output
    before, after = (read_report(tmp_path / "again" / "profile.json") for _ in range(2))
    changed = after["devices"][0]["runs"][0]
    changed["latency_metrics"]["decode"]["total"]["median_ms"] *= 9  # an emulator's time
    assert not compare(before, after, 5).failed
    changed["instructions"]["decode"] = round(1.2 * changed["instructions"]["decode"])
    assert [c.what for c in compare(before, after, 5).changes if c.failed] == ["decode: instructions"]


def test_litert_s_arm_wheel(phone, arm64, run, tmp_path):
    """The wheel's XNNPACK runs the exported networks on the phone, in the place of LiteRT's benchmark_model."""
    plugged = phone(arm64=arm64)
    shutil.copyfile(HERE / "benchmark_model.py", plugged.root / "benchmark_model.py")
    command = "qemu-aarch64-static -cpu cortex-a76 -L /arm64 -E PYTHONHOME=/arm64/usr -E PYTHONPATH=/arm64/packages"
    program = tmp_path / "benchmark_model"
    program.write_text(f'#!/system/bin/sh\nexec {command} /arm64/usr/bin/python3.11 /benchmark_model.py "$@"\n')
    result = run("--device", "adb", "--benchmark-model", str(program))
    assert result.exit_code == 0, result.output
    networks = read_report(tmp_path / "out" / "profile.json")["devices"][0]["networks"]["benchmark_model"]
    assert networks["available"]
    for name in ("analysis", "hyper_analysis", "hyper_synthesis", "context", "synthesis"):
        assert networks["networks"][name]["latency_metrics"]["avg_ms"] > 0
        assert networks["networks"][name]["misc_metrics"]["num_runs"] == 2


def test_battery_where_there_are_no_rails(phone, run, tmp_path):
    plugged = phone(odpm=False)
    assert run("--device", "adb").exit_code == 0
    energy = read_report(tmp_path / "out" / "profile.json")["devices"][0]["runs"][0]["energy"]["decode"]
    assert energy["meter"] == "battery"
    assert energy["total_mj"] == pytest.approx(1e3 * 0.41 * 3.98 * energy["window_s"], rel=0.02)
    plugged.write("sys/class/power_supply/battery/status", "Charging\n")
    assert run("--device", "adb").exit_code == 0
    energy = read_report(tmp_path / "out" / "profile.json")["devices"][0]["runs"][0]["energy"]["decode"]
    assert not energy["available"]
    assert "being charged" in energy["reason"]


def test_rails_through_perfetto(phone, run, tmp_path):
    trace_pb2 = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
    plugged = phone(odpm=False)
    plugged.record(trace_pb2)
    assert run("--device", "adb").exit_code == 0
    energy = read_report(tmp_path / "out" / "profile.json")["devices"][0]["runs"][0]["energy"]["decode"]
    assert energy["meter"] == "perfetto"
    assert energy["rails_mj"]["S2M_VDD_CPUCL2"] == pytest.approx(1e3 * ODPM_WATTS * energy["window_s"], rel=0.01)
    assert "collect_power_rails: true" in (plugged.root / "config").read_text()


def test_wrong_pixels_are_found(phone, run, folder, tmp_path):
    """A decoder whose hashes are off by a digit, and whose pixels are not."""
    phone()
    (tmp_path / "plic").write_text(
        '#!/system/bin/sh\nshift 2\nif [ "$1" = hash ]; then echo "0 1 2 x"; exit; fi\n'
        'if [ "$1" = encode ]; then echo another > $5; exit; fi\n'
        'for run in 1 2 3 4 5 6; do [ "$1" = bench ] && echo "1.0 2.0" || echo 1.0; done\n'
        '[ "$1" != decode ] || printf "P6\\n112 80\\n255\\n" > $4\n'
        '[ "$1" != decode ] || head -c 26880 /dev/zero >> $4\n'
    )
    result = run("--device", "adb", "--plic", str(tmp_path / "plic"))
    assert result.exit_code == 1, result.output
    determinism = read_report(tmp_path / "out" / "profile.json")["devices"][0]["runs"][0]["determinism"]
    assert not determinism["equal"]
    assert not any(stage["equal"] for stage in determinism["stages"])
    assert determinism["first_difference"]["tensor"] == "pixels"
    assert determinism["max_difference"] > 50


def test_conformance_vectors_on_the_phone(phone, run, folder, tmp_path):
    """Vectors of another model: one as recorded, one with wrong recorded pixels."""
    phone(odpm=False)
    bundle = open_bundle(folder / "bundle")
    codec = Codec(bundle.model)
    data = codec.encode(np.asarray(Image.open(folder / "images" / "one.png")), 40)
    symbols = codec.read_symbols(plic.read(data)).sha256()
    pixels = hashlib.sha256(codec.decode(data).tobytes()).hexdigest()
    vectors = [
        {"name": "good", "symbols": symbols, "pixels": pixels},
        {"name": "off", "symbols": symbols, "pixels": "0"},
    ]
    (tmp_path / "vectors" / "cpu").mkdir(parents=True)
    for vector in vectors:
        (tmp_path / "vectors" / "cpu" / f"{vector['name']}.plic").write_bytes(data)
    for count, code, text in ((1, 0, "1 of 1 equal"), (2, 1, "1 of 2 equal; not off")):
        content = {"models": {"cpu": {"id": bundle.model.model_id, "vectors": vectors[:count]}}}
        (tmp_path / "vectors" / "vectors.json").write_text(json.dumps(content))
        result = run("--device", "adb", "--vectors", str(tmp_path / "vectors"))
        assert result.exit_code == code, result.output
        assert text in (tmp_path / "out" / "profile.md").read_text()
        assert text in (tmp_path / "out" / "profile.html").read_text()


def test_the_app_is_used_when_the_phone_has_it(phone, run, tmp_path):
    plugged = phone()
    plugged.script("pm", f"[ $2 = {APP} ] && echo package:/data/app/base.apk")
    plugged.script("am", f'mkdir -p $(dirname {APP_RESULT}); echo \'{{"schema": "x"}}\' > {APP_RESULT}')
    assert run("--device", "adb").exit_code == 0
    assert json.loads((tmp_path / "out" / "profile.json").read_text())["devices"][0]["app"] == {"schema": "x"}
    plugged.script("am", "echo Error: Activity class does not exist")
    result = run("--device", "adb")
    assert result.exit_code == 2
    assert "did not start: Error: Activity class does not exist" in result.output


def test_litert_s_own_benchmark(phone, run, tmp_path):
    phone()
    line = "Inference timings in us: Init: 900, First inference: 800, Warmup (avg): 700, Inference (avg): 600"
    (tmp_path / "benchmark_model").write_text(f'#!/system/bin/sh\necho "{line}"\n')
    assert run("--device", "adb", "--benchmark-model", str(tmp_path / "benchmark_model")).exit_code == 0
    networks = read_report(tmp_path / "out" / "profile.json")["devices"][0]["networks"]["benchmark_model"]
    assert networks["networks"]["synthesis"]["latency_metrics"]["avg_ms"] == 0.6


def one_line(result, message, out):
    lines = [line for line in result.output.splitlines() if not line.startswith("127.0.0.1")]
    assert result.exit_code == 2, result.output
    assert len(lines) == 1
    assert message in lines[0]
    assert not out.exists()


def test_no_phone_two_phones_and_all(phone, run, tmp_path):
    out = tmp_path / "out"
    one_line(run("--device", "adb"), "adb sees no phone", out)
    one_line(run("--device", "adb:nowhere"), "phone nowhere is not connected", out)
    first, second = phone(odpm=False), phone(odpm=False)
    one_line(run("--device", "adb"), "adb sees 2 phones", out)
    assert run("--device", "all").exit_code == 0
    names = [device["name"] for device in read_report(out / "profile.json")["devices"]]
    assert names == sorted([first.serial, second.serial])


def test_an_unauthorized_phone(phone, run, tmp_path):
    plugged = phone(unauthorized=True)
    for device in ("adb", f"adb:{plugged.serial}"):
        one_line(run("--device", device), ": allow debugging on its screen", tmp_path / "out")


def test_a_full_disk(phone, run, tmp_path):
    phone(small_kb=64)
    one_line(run("--device", "adb"), "No space left on device", tmp_path / "out")


def test_a_program_that_crashes_and_one_that_prints_nonsense(phone, run, tmp_path):
    phone()
    program = tmp_path / "plic"
    program.write_text("#!/system/bin/sh\necho bad model >&2\nexit 7\n")
    one_line(run("--device", "adb", "--plic", str(program)), "plic failed: bad model", tmp_path / "out")
    program.write_text("#!/system/bin/sh\necho hello\n")
    one_line(run("--device", "adb", "--plic", str(program)), "printed 0 of 6 runs", tmp_path / "out")


def test_a_phone_unplugged_in_the_middle(phone, run, tmp_path):
    plugged = phone(odpm=False)
    program = tmp_path / "plic"
    program.write_text("#!/system/bin/sh\nsleep 30\n")
    threading.Timer(4.0, plugged.unplug).start()
    one_line(run("--device", "adb", "--plic", str(program)), plugged.serial, tmp_path / "out")


def test_exit_codes_timeouts_and_files(phone, tmp_path):
    plugged = phone()
    (device,) = find_devices(f"adb:{plugged.serial}")
    assert isinstance(device, AdbDevice)
    done = device.run("echo out; echo err >&2; exit 3")
    assert (done.code, done.out, done.err) == (3, "out\n", "err\n")
    assert device.run("uname -m; false").code == 1
    with pytest.raises(DeviceError, match="no end after"):
        device.run("sleep 20", timeout=1)
    (tmp_path / "big").write_bytes(os.urandom(700_001))
    device.push(tmp_path / "big", f"{device.folder}/big")
    device.pull(f"{device.folder}/big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "big").read_bytes()
    with pytest.raises(DeviceError, match="did not give"):
        device.pull("/nowhere", tmp_path / "none")
