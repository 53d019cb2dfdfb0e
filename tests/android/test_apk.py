"""The APK that CI builds without Google's SDK: complete, signed, aligned, and free of APIs that old systems lack."""

import hashlib
import json
import subprocess
import zipfile
from pathlib import Path

import pytest

import pocketlic
from pocketlic.quantization.shipped import MODELS

VECTORS = Path(__file__).parents[1] / "vectors"


@pytest.fixture(scope="module")
def apk(build):
    return build.apk()


def digest(content):
    return hashlib.sha256(content).hexdigest()


def output(*command):
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, check=True).stdout


def test_signature_and_alignment(ci, apk):
    text = output("apksigner", "verify", "--verbose", "--min-sdk-version", ci.setting("minSdk"), apk)
    assert text.startswith("Verifies\n")
    assert "Verified using v2 scheme (APK Signature Scheme v2): true" in text
    output("zipalign", "-c", "-p", "4", apk)


def test_what_the_system_is_told(apk):
    text = output("aapt2", "dump", "badging", apk)
    for line in (
        "package: name='org.pocketlic.demo' versionCode='1' versionName='0.1.0'",
        "sdkVersion:'26'",
        "targetSdkVersion:'36'",
        "launchable-activity: name='org.pocketlic.demo.MainActivity'",
        "application-label:'Pocketlic'",
    ):
        assert line in text
    assert "native-code: 'arm64-v8a' 'armeabi-v7a' 'x86_64'" in text
    assert "uses-permission" not in text
    manifest = output("aapt2", "dump", "xmltree", "--file", "AndroidManifest.xml", apk)
    for name in ("MainActivity", "BenchmarkActivity", "SelfTestActivity", "GalleryActivity", "FilesProvider"):
        assert f'"org.pocketlic.demo.{name}"' in manifest or f'".{name}"' in manifest


def test_contents(apk):
    """The model, its networks, the sample pictures and the vectors. Runtimes map files, so these are not compressed."""
    with zipfile.ZipFile(apk) as archive:
        names = set(archive.namelist())
        manifest = json.loads(archive.read("assets/bundle/manifest.json"))
        assert manifest["model_id"] == pocketlic.shipped_model("cpu").model_id
        assert manifest["tile"] == 512
        for name in manifest["files"]:
            assert f"assets/bundle/{name}" in names
        listed = json.loads((VECTORS / "vectors.json").read_text())["models"]["cpu"]["vectors"]
        for vector in listed:
            content = archive.read(f"assets/vectors/cpu/{vector['name']}.plic")
            assert content == (VECTORS / "cpu" / f"{vector['name']}.plic").read_bytes()
        # Files of any shipped model can be opened.
        for model in (weights.load() for weights in MODELS if weights.name != "cpu"):
            (name,) = (n for n in names if n.startswith("assets/models/") and digest(archive.read(n)) == model.model_id)
        for info in archive.infolist():
            if info.filename.endswith((".tflite", ".plic")):
                assert info.compress_type == zipfile.ZIP_STORED, info.filename
    assert apk.stat().st_size < 7_500_000


def test_references_exist_on_the_oldest_system(build, ci):
    level = int(ci.setting("minSdk"))
    assert build.missing_references(level) == []
    # At one level lower, a class of level 26 that the app uses is reported.
    assert any("Landroid/graphics/ColorSpace" in line for line in build.missing_references(level - 1))


PLANTED = """
import android.content.Context;
import android.os.Build;

class Careless {
    Object display(Context context) { return context.getDisplay(); }
    boolean controller(Object object) { return object instanceof android.view.WindowInsetsController; }
}

class Careful {
    Object display(Context context) { return Build.VERSION.SDK_INT >= 30 ? context.getDisplay() : null; }
}

abstract class Heir implements android.view.OnReceiveContentListener {}
"""


def test_a_planted_call_stops_the_build(build, ci, tmp_path):
    """A method and classes of API 30 and later, used with and without a check of the level, compiled as the app is."""
    (tmp_path / "Planted.java").write_text(PLANTED)
    jar = build.android_jar()
    output(
        "javac", "-nowarn", "--release", "8", "-Xlint:-options", "-cp", jar, "-d", tmp_path, tmp_path / "Planted.java"
    )
    classes = sorted(tmp_path.glob("*.class"))
    output("java", "-cp", build.r8, "com.android.tools.r8.D8", "--min-api", ci.setting("minSdk"), "--lib", jar,
           "--output", tmp_path, *classes)  # fmt: skip
    with pytest.raises(ci.BuildError) as failure:
        build.check_references(tmp_path / "classes.dex")
    assert str(failure.value).splitlines()[1:] == [
        "Landroid/content/Context;->getDisplay ()Landroid/view/Display;, used in LCareless;->display: API 30",
        "Landroid/view/OnReceiveContentListener;, extended by LHeir;: API 31",
        "Landroid/view/WindowInsetsController;, used in LCareless;->controller: API 30",
    ]


def test_what_the_check_of_references_finds(build, ci):
    levels = ci.ApiLevels(build.r8)
    new = "method Lapp/A;->{} Landroid/content/Context; getDisplay ()Landroid/view/Display;"
    lines = [
        "class Lapp/A; Landroid/app/Activity;",
        "field Lapp/A;->careful Landroid/os/Build$VERSION; SDK_INT I",
        new.format("careful"),
        "method Lapp/A;->plain Lapp/A; finish ()V",
        "method Lapp/A;->plain Lapp/A; own (I)V",
    ]
    stubs = ["class android/app/Activity class android/content/Context", "class android/content/Context class "]
    assert ci.missing_at(26, lines, stubs, levels) == []
    (line,) = ci.missing_at(26, [*lines, new.format("careless")], stubs, levels)
    assert line.endswith("used in Lapp/A;->careless: API 30")
    wrong = "method Lapp/A;->plain Landroid/app/Activity; finish (J)V"
    (line,) = ci.missing_at(26, [*lines, wrong], stubs, levels)
    assert line.endswith("unknown")


@pytest.mark.parametrize("abi", ["arm64-v8a", "armeabi-v7a", "x86_64"])
def test_the_library_takes_nothing_but_what_bionic_has(build, ci, abi):
    library = build.jni(abi)
    tool = ci.COMPILERS[abi][0].replace("g++", "readelf")
    symbols = [line.split() for line in output(tool, "--dyn-syms", "-W", library).splitlines() if " UND " in line]
    assert {row[7].partition("@")[0] for row in symbols if len(row) > 7} <= set(ci.LIBC)
    dynamic = output(tool, "-dW", library)
    assert [line.split("[")[1][:-1] for line in dynamic.splitlines() if "NEEDED" in line] == ["libc.so"]
    loads = [line.split() for line in output(tool, "-lW", library).splitlines() if line.strip().startswith("LOAD")]
    assert {int(row[-1], 16) for row in loads} == {16384}
    assert "TEXTREL" not in dynamic


def test_the_other_flavour_and_the_instrumented_tests_compile(build):
    assert (build.instrumented() / "org/pocketlic/demo/EngineOnDeviceTest.class").exists()


def test_errors_are_one_line(ci, tmp_path):
    with pytest.raises(ci.BuildError, match=r"^not here: "):
        ci.Build(tmp_path, tmp_path / "out")
    with pytest.raises(ci.BuildError, match=r"^build\.gradle\.kts has no nonsense$"):
        ci.setting("nonsense")
