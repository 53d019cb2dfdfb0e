"""The command-line tool, built with sanitizers, on good files and on damaged ones."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import shutil
import signal
import stat
import subprocess
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pocketlic
from pocketlic.codec import format as plic
from pocketlic.codec._native import NativeDecoder
from pocketlic.codec.codec import Codec
from pocketlic.codec.image import read_picture
from pocketlic.codec.native import COMPILE, TOOL

ROOT = Path(__file__).parents[2]
FLAGS = ["-std=c++17", "-O1", "-g", "-fno-sanitize-recover=all"]


def build(folder: Path, sanitizers: str) -> Path:
    """The tool with sanitizers; skips where there are none."""
    compiler = next((c for c in ("c++", "g++", "clang++") if shutil.which(c)), None)
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    path, flags = folder / "plic", [*FLAGS, f"-fsanitize={sanitizers}"]

    def compile_one(source: str) -> subprocess.CompletedProcess[str]:
        command = [compiler, *flags, *COMPILE, "-c", source, "-o", str(folder / f"{Path(source).stem}.o")]
        return subprocess.run(command, capture_output=True, text=True)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in pool.map(compile_one, TOOL):
            assert done.returncode == 0, done.stderr
    objects = sorted(map(str, folder.glob("*.o")))
    built = subprocess.run([compiler, *flags, "-pthread", *objects, "-o", str(path)], capture_output=True, text=True)
    if built.returncode != 0 and "san" in built.stderr and "cannot find" in built.stderr:
        pytest.skip("the compiler has no sanitizers")
    assert built.returncode == 0, built.stderr
    return path


@pytest.fixture(scope="session")
def tool(tmp_path_factory):
    """The tool under AddressSanitizer and UndefinedBehaviorSanitizer: its output, or its error."""
    path = build(tmp_path_factory.mktemp("tool"), "address,undefined")

    def run(*arguments, program=path, binary=False, **options):
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        done = subprocess.run([str(program), *map(str, arguments)], **options)
        done.stderr = done.stderr.decode(errors="replace")
        if not binary and done.stdout is not None:
            done.stdout = done.stdout.decode(errors="replace")
        assert done.returncode in (0, 2), done.stderr
        assert "Sanitizer" not in done.stderr, done.stderr
        return done

    run.path = path
    return run


@pytest.fixture(scope="module")
def files(tmp_path_factory, make, picture):
    """A folder with a small model and files of it."""
    folder = tmp_path_factory.mktemp("files")
    model = make.small_model("cpu")
    (folder / "model").write_bytes(model.to_bytes())
    codec = Codec(model)
    for i, (height, width, grey) in enumerate([(1, 1, True), (50, 70, False), (130, 65, True)]):
        (folder / f"{i}.plic").write_bytes(codec.encode(picture(height, width, grey=grey), 40, exif=b"exif"))
    return folder


def hashes(output):
    return {line.split()[-1]: line.split()[:2] for line in output.splitlines()}


def test_good_files(tool, files, tmp_path):
    native = NativeDecoder((files / "model").read_bytes())
    paths = sorted(files.glob("*.plic"))
    done = tool("hash", files / "model", *paths)
    assert (done.returncode, done.stderr) == (0, "")
    for path in paths:
        data = path.read_bytes()
        symbols, pixels, _ = native.hash(data)
        assert hashes(done.stdout)[str(path)] == [symbols.hex(), pixels.hex()]
        out = tmp_path / "picture.ppm"
        assert tool("decode", files / "model", path, out).returncode == 0
        np.testing.assert_array_equal(read_picture(out).pixels, native.decode(data))
        info = dict(line.split(maxsplit=1) for line in tool("info", path).stdout.splitlines())
        assert info["width"] == str(plic.read(data).header.width)
        assert tool("recode", files / "model", path, out).returncode == 0
        bare = plic.read(data)
        assert out.read_bytes() == plic.write(plic.PlicFile(bare.header, bare.bands))


def test_shipped_model(tool, tmp_path, picture):
    (tmp_path / "model").write_bytes(pocketlic.shipped_model().to_bytes())
    data = pocketlic.encode(picture(70, 90))
    (tmp_path / "a.plic").write_bytes(data)
    for kernels in tool("kernels").stdout.split():
        done = tool("--kernels", kernels, "hash", tmp_path / "model", tmp_path / "a.plic")
        digest = hashlib.sha256(pocketlic.decode(data).tobytes()).hexdigest()
        assert hashes(done.stdout)[str(tmp_path / "a.plic")][1] == digest


@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_any_number_of_threads(tool, tmp_path_factory, make, picture, sanitizers):
    """Several bands and columns of tiles: same bytes, pixels and complaints, and no race."""
    folder = tmp_path_factory.mktemp("threads")
    program = tool.path if sanitizers != "thread" else build(folder, sanitizers)
    model = make.small_model("cpu")
    (folder / "model").write_bytes(model.to_bytes())
    pixels = picture(2100, 1100)
    (folder / "picture.ppm").write_bytes(b"P6 1100 2100 255\n" + pixels.tobytes())
    made, shown, complaints = set(), set(), set()
    for threads in (1, 2, 3, 8):

        def run(*arguments, threads=threads):
            return tool("--threads", threads, *arguments, program=program)

        assert run("encode", folder / "model", folder / "picture.ppm", 60, folder / "a.plic").returncode == 0
        made.add((folder / "a.plic").read_bytes())
        assert run("decode", folder / "model", folder / "a.plic", folder / "a.ppm").returncode == 0
        shown.add((folder / "a.ppm").read_bytes())
        file = plic.read((folder / "a.plic").read_bytes())
        bands = [bytes([file.bands[0][0]]) + bytes(len(file.bands[0]) - 1), file.bands[1][:-1], file.bands[2]]
        (folder / "b.plic").write_bytes(plic.write(replace(file, bands=tuple(bands))))
        complaints.add(run("decode", folder / "model", folder / "b.plic", folder / "b.ppm").stderr)
    assert [len(made), len(shown), len(complaints)] == [1, 1, 1]
    assert "damaged payload" in complaints.pop()
    np.testing.assert_array_equal(read_picture(folder / "a.ppm").pixels, Codec(model).decode(made.pop()))


def test_damaged_files(tool, files, tmp_path):
    """Flipped bits, with and without a repaired checksum: with it they reach the entropy decoder."""
    rng = np.random.default_rng(0)
    file = plic.read((files / "1.plic").read_bytes())
    for i in range(300):
        stream = bytearray(file.bands[0])
        for _ in range(1 + i % 3):
            stream[int(rng.integers(len(stream)))] ^= 1 << int(rng.integers(8))
        if i % 4 == 0:
            del stream[int(rng.integers(len(stream))) :]
        data = bytearray(plic.write(plic.PlicFile(file.header, (bytes(stream),))))
        if i % 5 == 0:
            data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        (tmp_path / f"{i}").write_bytes(data)
    done = tool("hash", files / "model", *sorted(tmp_path.iterdir()))
    lines = done.stdout.splitlines()
    assert len(lines) == 300
    assert sum(line.startswith("error 3: ") for line in lines) > 250
    for path in list(tmp_path.iterdir())[:5]:
        assert tool("decode", files / "model", path, tmp_path / "out.ppm").returncode in (0, 2)


@pytest.mark.parametrize(
    ("quality", "message"),
    [
        *((text, "not a number") for text in ("", "best", "60%")),
        *((text, "quality are out of range") for text in ("-1", "100.5", "nan", "1e99")),
    ],
)
def test_qualities_that_are_none(tool, files, tmp_path, quality, message):
    (tmp_path / "picture.ppm").write_bytes(b"P6\n2 1\n255\n" + bytes(6))
    for command, last in (("encode", tmp_path / "out"), ("bench-encode", 1)):
        done = tool(command, files / "model", tmp_path / "picture.ppm", quality, last)
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_damaged_models(tool, files, tmp_path):
    rng = np.random.default_rng(0)
    model = (files / "model").read_bytes()
    header = int.from_bytes(model[:8], "little")
    for i in range(40):
        damaged = bytearray(model[: int(rng.integers(len(model)))] if i % 4 == 0 else model)
        for _ in range(1 + i % 3):
            damaged[int(rng.integers(min(header, len(damaged))))] = int(rng.integers(256))
        (tmp_path / "model").write_bytes(damaged)
        done = tool("hash", tmp_path / "model", files / "1.plic")
        assert done.returncode == 2
        assert done.stdout.startswith("error 4") or done.stderr.startswith("plic: ")


def test_a_layer_of_many_unknown_inputs(tool, files, make, tmp_path):
    """Inputs after the first unknown one were once written beyond the layer."""
    model = make.small_model("cpu")
    layers = list(model.networks["context"].layers)
    layers[0] = replace(layers[0], inputs=("nothing", "features", "features", "features"))
    network = replace(model.networks["context"], layers=tuple(layers))
    (tmp_path / "model").write_bytes(replace(model, networks={**model.networks, "context": network}).to_bytes())
    done = tool("hash", tmp_path / "model", files / "1.plic")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no sound inputs" in done.stderr


def test_mistakes_end_in_one_line(tool, files, tmp_path):
    path = files / "1.plic"
    for arguments in (
        ["info", tmp_path / "missing"],
        ["hash", tmp_path / "missing", path],
        ["hash", path, path],
        ["decode", files / "model", path, tmp_path / "no" / "folder"],
        ["--kernels", "abacus", "hash", files / "model", path],
        ["--max-pixels", "10", "decode", files / "model", path, tmp_path / "out"],
        ["--max-memory", "1000", "decode", files / "model", path, tmp_path / "out"],
        ["--colour", "blue", "info", path],
    ):
        done = tool(*arguments)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), arguments
    assert not (tmp_path / "out").exists()
    assert tool().stderr.startswith("usage:")


def test_names_are_printed_on_one_line(tool, files, tmp_path):
    """Whatever they are: control characters would break the line, or write to the terminal."""
    name, shown = "a\nb\x1b[31m\x7f.plic", "a\\x0ab\\x1b[31m\\x7f.plic"
    (tmp_path / "dot.pgm").write_bytes(b"P5\n1 1\n255\n.")
    for arguments in (
        ["info", tmp_path / name],
        ["decode", files / "model", tmp_path / name, tmp_path / "out.ppm"],
        ["decode", files / "model", files / "1.plic", tmp_path / "no" / name.replace("plic", "ppm")],
        ["encode", files / "model", tmp_path / "dot.pgm", f"6{name}", tmp_path / "out.plic"],
        [f"--{name}", "1", "info", files / "1.plic"],
    ):
        done = tool(*arguments)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), arguments
        assert shown.removesuffix(".plic") in done.stderr
        assert not set(done.stderr) & {"\x1b", "\x7f"}, arguments
    (tmp_path / name).write_bytes((files / "1.plic").read_bytes())
    assert tool("hash", files / "model", tmp_path / name).stdout.endswith(f"{shown}\n")


PPM = b"P6\n70 50\n255\n"


@pytest.fixture
def jobs(files, picture, make, tmp_path):
    """A folder of inputs, and for each command that writes: its arguments but for the output, and bad variants."""
    folder = tmp_path / "in"
    shutil.copytree(files, folder)
    (folder / "picture.ppm").write_bytes(PPM + picture(50, 70).tobytes())
    (folder / "cut.ppm").write_bytes((folder / "picture.ppm").read_bytes()[:-1])
    (folder / "stranger").write_bytes(make.small_model("cpu", seed=7).to_bytes())
    file = plic.read((folder / "1.plic").read_bytes())
    damaged = (file.bands[0][:-2] + b"\0\0",)
    (folder / "damaged.plic").write_bytes(plic.write(plic.PlicFile(file.header, damaged)))
    model, good = folder / "model", folder / "1.plic"
    return {
        "decode": ([model, good], [[folder / "stranger", good], [model, folder / "damaged.plic"]]),
        "recode": ([model, good], [[folder / "stranger", good], [model, folder / "damaged.plic"]]),
        "encode": ([model, folder / "picture.ppm", 60], [[model, folder / "cut.ppm", 60], [good, good, 60]]),
    }


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def full_disk():
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))


def test_a_failed_run_leaves_what_was_there(tool, jobs, tmp_path):
    """A wrong model, a damaged payload, a cut picture, a full disk: the old file stays, or none appears."""
    out = tmp_path / "out" / "file"
    out.parent.mkdir()
    for command, (good, bad) in jobs.items():
        for arguments, options in [(good, {"preexec_fn": full_disk}), *((b, {}) for b in bad)]:
            done = tool(command, *arguments, out, **options)
            assert (done.returncode, done.stderr.count("\n")) == (2, 1), arguments
            assert names(out.parent) == []
            out.write_bytes(b"what was there")
            assert tool(command, *arguments, out, **options).returncode == 2
            assert (names(out.parent), out.read_bytes()) == (["file"], b"what was there")
            out.unlink()
    assert os.strerror(errno.EFBIG) in tool("recode", *jobs["recode"][0], out, preexec_fn=full_disk).stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
def test_a_killed_run_leaves_a_whole_file(tool, jobs, tmp_path, number):
    out = tmp_path / "out" / "file"
    out.parent.mkdir()
    for command, (arguments, _) in jobs.items():
        began = time.monotonic()
        assert tool(command, *arguments, out).returncode == 0
        seconds, new = time.monotonic() - began, out.read_bytes()
        for i in range(12):
            out.write_bytes(b"what was there")
            process = subprocess.Popen([tool.path, command, *map(str, arguments), out], stderr=subprocess.DEVNULL)
            time.sleep(seconds * i / 11)
            process.send_signal(number)
            assert process.wait() in (0, -number)
            assert out.read_bytes() in (b"what was there", new)
            if number != signal.SIGKILL:
                assert names(out.parent) == ["file"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
def test_a_terminated_run_removes_its_own_file(tool, files, tmp_path, number):
    """Ended while rows are on their way: the temporary file is there, and then not."""
    picture, file = tmp_path / "large.ppm", tmp_path / "large.plic"
    picture.write_bytes(b"P5\n600 3000\n255\n" + bytes(600 * 3000))
    assert tool("encode", files / "model", picture, 60, file).returncode == 0
    out = tmp_path / "out" / "file"
    out.parent.mkdir()
    process = subprocess.Popen([tool.path, "decode", files / "model", file, out])
    while not names(out.parent) and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(number)
    assert process.wait() == -number
    assert names(out.parent) == []


def test_ignored_signals_stay_ignored(tool, jobs, tmp_path):
    """As under nohup: a closed terminal does not end the run."""
    model, picture, _ = jobs["encode"][0]
    reading, writing = os.pipe()
    ignore = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731
    process = subprocess.Popen(
        [tool.path, "encode", model, "-", "60", tmp_path / "file"], stdin=reading, preexec_fn=ignore
    )
    os.close(reading)
    time.sleep(0.2)
    process.send_signal(signal.SIGHUP)
    os.write(writing, picture.read_bytes())
    os.close(writing)
    assert process.wait(60) == 0
    assert tool("info", tmp_path / "file").returncode == 0


def test_runs_at_once(tool, jobs, files, tmp_path):
    """Twelve runs write one name: one of their results stands there, whole, and nothing beside it."""
    model, out = files / "model", tmp_path / "out" / "file.ppm"
    out.parent.mkdir()
    wanted = [tool("decode", model, files / f"{i}.plic", "-", binary=True).stdout for i in range(3)]
    runs = [subprocess.Popen([tool.path, "decode", model, files / f"{i % 3}.plic", out]) for i in range(12)]
    assert [run.wait() for run in runs] == [0] * 12
    assert out.read_bytes() in wanted
    assert names(out.parent) == ["file.ppm"]


def test_standard_streams(tool, jobs, tmp_path):
    for command, (arguments, _) in jobs.items():
        assert tool(command, *arguments, tmp_path / "file").returncode == 0
        wanted = (tmp_path / "file").read_bytes()
        for name in ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
            assert tool(command, *arguments, name, binary=True).stdout == wanted, name
        piped = [arguments[0], "-", *arguments[2:], "-"]
        with arguments[1].open("rb") as source:
            assert tool(command, *piped, stdin=source, binary=True).stdout == wanted
        # What stands in a redirected file stays the same file.
        with (tmp_path / "redirected").open("wb") as file:
            assert tool(command, *arguments, "/dev/stdout", stdout=file).returncode == 0
            assert os.fstat(file.fileno()).st_size == len(wanted)
        assert (tmp_path / "redirected").read_bytes() == wanted
    with jobs["decode"][0][1].open("rb") as source:
        assert "width       70" in tool("info", "-", stdin=source).stdout


def test_special_files_are_written_to_and_stay(tool, jobs, tmp_path):
    """A pipe, and as root a device node: also where the run fails."""
    for command, (arguments, bad) in jobs.items():
        pipe = tmp_path / f"{command}-pipe"
        os.mkfifo(pipe)
        assert tool(command, *arguments, tmp_path / "file").returncode == 0
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(pipe.read_bytes)
            assert tool(command, *arguments, pipe).returncode == 0
            assert reading.result() == (tmp_path / "file").read_bytes()
        assert stat.S_ISFIFO(pipe.stat().st_mode)
        null = Path("/dev/null")
        if os.geteuid() == 0:
            null = tmp_path / f"{command}-null"
            os.mknod(null, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        for choice in (arguments, *bad):
            assert tool(command, *choice, null).returncode == (0 if choice is arguments else 2)
            assert stat.S_ISCHR(null.stat().st_mode)
        done = tool(command, *arguments, "/dev/full")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert os.strerror(errno.ENOSPC) in done.stderr
        assert tool(command, *arguments, tmp_path).returncode == 2


def test_links_and_modes(tool, jobs, tmp_path):
    """A link stays one, also to a file that is not there yet; what it leads to is replaced and keeps its mode."""
    (tmp_path / "far").mkdir()
    for command, (arguments, _) in jobs.items():
        assert tool(command, *arguments, tmp_path / "file").returncode == 0
        wanted = (tmp_path / "file").read_bytes()
        (tmp_path / "file").unlink()
        target, link, second = tmp_path / "far" / "target", tmp_path / "link", tmp_path / "far" / "second"
        link.symlink_to("far/second")
        second.symlink_to("target")
        assert tool(command, *arguments, link).returncode == 0
        assert target.read_bytes() == wanted
        for mode in (0o600, 0o640, 0o755, 0o666):
            target.write_bytes(b"old")
            target.chmod(mode)
            if os.geteuid() == 0:
                os.chown(target, 1234, 5678)
            before = target.stat()
            assert tool(command, *arguments, link).returncode == 0
            after = target.stat()
            assert (target.read_bytes(), stat.S_IMODE(after.st_mode)) == (wanted, mode)
            assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)
        assert link.is_symlink()
        assert second.is_symlink()
        for path in (target, link, second):
            path.unlink()
        link.symlink_to("link")  # to itself
        assert tool(command, *arguments, link).returncode == 2
        assert link.is_symlink()
        link.unlink()


def test_a_read_only_file_is_not_replaced(tool, jobs):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in (tool.path, *jobs["decode"][0]):
            shutil.copy(path, folder)
        (folder / "old").write_bytes(b"old")
        (folder / "old").chmod(0o444)
        folder.chmod(0o777)
        user = 65534 if os.geteuid() == 0 else None  # permissions do not bind root
        done = tool("decode", "model", "1.plic", "old", program=folder / "plic", user=user, cwd=folder)
        assert (done.returncode, os.strerror(errno.EACCES) in done.stderr) == (2, True)
        assert (folder / "old").read_bytes() == b"old"
        assert tool("decode", "model", "1.plic", "new", program=folder / "plic", user=user, cwd=folder).returncode == 0


def test_an_output_that_is_an_input(tool, jobs, tmp_path):
    """By identity: the name itself, another spelling, a symbolic and a hard link, of each input."""
    for command, (arguments, _) in jobs.items():
        for i in (0, 1):
            path = tmp_path / f"{command}-{i}"
            shutil.copy(arguments[i], path)
            (tmp_path / "soft").symlink_to(path)
            (tmp_path / "hard").hardlink_to(path)
            changed = [*arguments[:i], path, *arguments[i + 1 :]]
            for out in (path, f"{tmp_path}/../{tmp_path.name}/{path.name}", tmp_path / "soft", tmp_path / "hard"):
                done = tool(command, *changed, out)
                assert (done.returncode, "one of the inputs" in done.stderr) == (2, True)
            assert path.read_bytes() == arguments[i].read_bytes()
            (tmp_path / "soft").unlink()
            (tmp_path / "hard").unlink()


def test_outputs_named_like_the_other_kind(tool, jobs, tmp_path):
    pictures = "ppm pgm pnm pbm png jpg jpeg tif tiff bmp webp avif heic heif jxl jp2 gif tga JPG Png"
    for suffix in pictures.split():
        done = tool("encode", *jobs["encode"][0], tmp_path / f"a.{suffix}")
        assert (done.returncode, "named like a picture" in done.stderr) == (2, True)
    for suffix in ("plic", "PLIC"):
        done = tool("decode", *jobs["decode"][0], tmp_path / f"a.{suffix}")
        assert (done.returncode, "named like an encoded file" in done.stderr) == (2, True)
    assert names(tmp_path) == ["in"]
    for name in ("plic", "a.plic", "jpg", "a.jpg.plic", "a"):
        assert tool("encode", *jobs["encode"][0], tmp_path / name).returncode == 0


BAD_NUMBERS = ["banana", "", "-1", "+1", " 1", "1 ", "0x10", "1e9", "1.5", "18446744073709551616", "9" * 40]


@pytest.mark.parametrize("text", BAD_NUMBERS)
def test_numbers_that_are_none(tool, files, text):
    file = files / "1.plic"
    for arguments in (
        ["--max-memory", text, "info", file],
        ["--max-pixels", text, "info", file],
        ["bench", files / "model", file, text],
        ["bench-encode", files / "model", file, 60, text],
    ):
        done = tool(*arguments)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), arguments
        assert f"plic: {text}: not a " in done.stderr
    assert tool("bench", files / "model", file, "0").returncode == 2
    assert tool("--max-memory", "18446744073709551615", "info", file).returncode == 0


def test_a_full_standard_output(tool, jobs, files):
    model, file = files / "model", files / "1.plic"
    commands = [
        ["info", file],
        ["kernels"],
        ["--help"],
        ["--version"],
        ["hash", model, file],
        ["bench", model, file, 2],
    ]
    commands += [["bench-encode", *jobs["encode"][0], 2]]
    commands += [[command, *arguments, "-"] for command, (arguments, _) in jobs.items()]
    for arguments in commands:
        with Path("/dev/full").open("wb") as full:
            done = tool(*arguments, stdout=full)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), arguments
        assert os.strerror(errno.ENOSPC) in done.stderr


@pytest.mark.parametrize(
    "header",
    [
        *(b"P6\n%s 50\n255\n" % n for n in (b"4294967366", b"18446744073709551686", b"-70", b"+70", b"9" * 99)),
        *(b"P6\n70 %s\n255\n" % n for n in (b"4294967346", b"-1", b"", b"50.", b"fifty")),
        *(b"P6\n70 50\n%s\n" % n for n in (b"4294967551", b"256", b"65535", b"1", b"0", b"254", b"2550")),
        *(b"P%s\n70 50\n255\n" % n for n in (b"", b"1", b"2", b"3", b"4", b"7", b"F", b"66")),
        *(PPM[:n] for n in range(len(PPM))),
        b"P6\n70 50\n255#no\n", b"P6 # no end", b"p6\n70 50\n255\n",
    ],
)  # fmt: skip
def test_picture_headers_that_are_none(tool, jobs, tmp_path, header):
    (tmp_path / "picture.ppm").write_bytes(header + (b"" if PPM.startswith(header) else bytes(3 * 70 * 50)))
    done = tool("encode", jobs["encode"][0][0], tmp_path / "picture.ppm", 60, tmp_path / "out")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "not a PPM or PGM" in done.stderr
    assert names(tmp_path) == ["in", "picture.ppm"]


def test_picture_headers_with_comments(tool, jobs, tmp_path):
    model, picture, quality = jobs["encode"][0]
    assert tool("encode", model, picture, quality, tmp_path / "plain").returncode == 0
    for header in (b"P6 70\t50\r\n255\n", b"P6\n# made by\n#\n70 # wide\n50\n# most\n255\n"):
        (tmp_path / "other.ppm").write_bytes(header + picture.read_bytes()[len(PPM) :])
        assert tool("encode", model, tmp_path / "other.ppm", quality, tmp_path / "other").returncode == 0
        assert (tmp_path / "other").read_bytes() == (tmp_path / "plain").read_bytes()


def test_version_and_help(tool):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for name in ("--version", "-v"):
        assert (tool(name).stdout, tool(name).returncode) == (f"plic {version}\n", 0)
    for name in ("--help", "-h"):
        assert tool(name).stdout.startswith("usage: plic info FILE")
