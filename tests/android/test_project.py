"""The Gradle project and the resources, as far as they can be read without Gradle and the Android plugin."""

import re
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest

PROJECT = Path(__file__).parents[2] / "android_demo"
MAIN = PROJECT / "app" / "src" / "main"
CATALOG = tomllib.loads((PROJECT / "gradle" / "libs.versions.toml").read_text())
SCRIPTS = sorted(PROJECT.glob("**/*.gradle.kts"))
LAYOUTS = sorted((MAIN / "res").glob("layout*/*.xml"))
STYLES = [MAIN / "res" / folder / "styles.xml" for folder in ("values", "values-night")]
ANDROID = "{http://schemas.android.com/apk/res/android}"


def test_the_version_catalog_has_what_the_scripts_use():
    entries = {**CATALOG["libraries"], **{f"plugins-{name}": entry for name, entry in CATALOG["plugins"].items()}}
    referred = {entry["version"]["ref"] for entry in entries.values()}
    assert referred == set(CATALOG["versions"])
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in CATALOG["versions"].values())
    used = {name for script in SCRIPTS for name in re.findall(r"\blibs\.([\w.]+)", script.read_text())}
    assert used == {name.replace("-", ".") for name in entries}


def test_the_runtimes_are_those_of_the_exporter():
    """The assets are made by these versions; an older runtime may not read them."""
    python = (PROJECT.parent / "pyproject.toml").read_text()
    for package, entry in (("ai-edge-litert", "litert"), ("executorch", "executorch")):
        assert f'"{package}=={CATALOG["versions"][entry]}"' in python


def test_the_wrapper_names_a_gradle_that_the_plugin_accepts():
    """Android's plugin 9.0 wants Gradle 9.1 or later."""
    properties = (PROJECT / "gradle" / "wrapper" / "gradle-wrapper.properties").read_text()
    gradle = re.search(
        r"distributionUrl=https\\://services\.gradle\.org/distributions/gradle-([\d.]+)-bin\.zip", properties
    )
    assert [int(part) for part in gradle[1].split(".")] >= [9, 1]
    assert CATALOG["versions"]["agp"].startswith("9.0.")
    assert f"Gradle {gradle[1].removesuffix('.0')}" in (PROJECT.parent / "docs" / "android.md").read_text()


def test_the_scripts_are_kotlin(build, tmp_path):
    assert build.script_errors(*SCRIPTS) == ""


def test_the_scripts_name_files_that_exist():
    """Assets, rules and sources; sourceSets of the flavours have their folders."""
    script = (PROJECT / "app" / "build.gradle.kts").read_text()
    assert (PROJECT / "app" / re.search(r'cmake \{ path = file\("(.+?)"\)', script)[1]).exists()
    assert (PROJECT / "app" / "proguard-rules.pro").exists()
    for flavour in re.findall(r'create\("(\w+)"\)', script):
        assert list((PROJECT / "app" / "src" / flavour).rglob("*.kt"))
    models = re.search(r"models\.from\(listOf\((.+?)\)", script)[1]
    for name in re.findall(r'"(.+?)"', models):
        assert (PROJECT.parent / "models" / "weights" / f"pocketlic-{name}.safetensors").exists()
    # Plugin 9 refuses generated files in a source folder.
    assert "srcDir" not in script
    # The core includes C++ headers, which the NDK has only together with a library.
    assert "ANDROID_STL=none" not in script


def test_every_text_is_used_and_every_used_text_exists():
    strings = set(re.findall(r'<string name="(\w+)"', (MAIN / "res/values/strings.xml").read_text()))
    used = set()
    for path in [*(MAIN.parent).rglob("*.kt"), *MAIN.rglob("*.xml")]:
        used |= set(re.findall(r"(?:R\.string\.|@string/)(\w+)", path.read_text()))
    assert used == strings


@pytest.mark.parametrize("path", LAYOUTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_screens_are_for_everyone(path):
    """Labels for TalkBack, text in the user's size, both directions of writing, large enough touch targets."""
    views = list(ElementTree.parse(path).getroot().iter())
    labelled = {view.get(f"{ANDROID}labelFor", "").rpartition("/")[2] for view in views}
    for view in views:
        spoken = view.get(f"{ANDROID}text") or view.get(f"{ANDROID}contentDescription")
        name = view.get(f"{ANDROID}id", "").rpartition("/")[2]
        if view.tag in ("Button", "RadioButton", "ImageView", "ImageButton"):
            assert spoken, name
        if view.tag in ("EditText", "Spinner", "SeekBar"):
            assert spoken or name in labelled, name
            assert "48dp" in (view.get(f"{ANDROID}minHeight"), view.get(f"{ANDROID}layout_height")), name
        if spoken:
            assert spoken.startswith("@string/"), spoken
        if view.get(f"{ANDROID}text"):  # the view grows with its text
            assert view.get(f"{ANDROID}layout_height") in (None, "wrap_content"), name
        for attribute, value in view.items():
            assert not re.search(r"Left|Right|[a-z]_to(Start|End)?Of$", attribute), attribute
            assert value not in ("left", "right"), attribute
            assert not (attribute.endswith("textSize") and not value.endswith("sp")), value


def test_pictures_made_in_code_are_described():
    for path in MAIN.rglob("*.kt"):
        source = path.read_text()
        if re.search(r"\bImageView\(|: View\(", source):
            assert "contentDescription = " in source, path.name
    assert "scaledDensity" in (MAIN / "kotlin/org/pocketlic/demo/CompareView.kt").read_text()


def colours(path):
    return {item.get("name"): item.text for item in ElementTree.parse(path).getroot().iter("color")}


def contrast(one, other):
    """WCAG 2's contrast ratio of two colours #RRGGBB."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("path", STYLES, ids=["light", "dark"])
def test_both_themes_can_be_read(path):
    colour = colours(path)
    assert set(colours(STYLES[1])) <= set(colours(STYLES[0]))
    text = "#000000" if path is STYLES[0] else "#FFFFFF"
    for front, back in (
        (colour["on_primary"], colour["primary"]),
        (colour["primary"], colour["container"]),
        (text, colour["surface"]),
        (text, colour["container"]),
    ):
        assert contrast(front, back) >= 4.5, (front, back)
