"""Pages and tables of all reports: names stay text, and Chromium shows them to everybody, by keyboard too."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from pocketlic.cli import app
from pocketlic.console import printable
from pocketlic.export.bundle import write_bundle
from pocketlic.profiling.device.report import markdown, page, read_report
from pocketlic.profiling.text import Table, markdown_text

HOSTILE = (
    "<!--<script>",
    "a|b\"'><img src=x onerror=document.title=1>",
    "$\\frac$ {{7*7}} [red]_x_ `y` &lt; @DATA@",
)
MORE = (
    "two\nlines",
    "\x1b[31mred",
    "\u202eleft",
    "\udcff",
    "[bold]",
    ":smile:",
    "**b** [l](http://x)",
    "#",
    "~~",
    "日本",
)


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory, make, picture) -> Path:
    """A folder with every kind of page, made of pictures whose names are hostile."""
    folder = tmp_path_factory.mktemp("reports")
    (folder / "pictures").mkdir()
    for i, name in enumerate(HOSTILE):
        Image.fromarray(picture(64, 80, i)).save(folder / "pictures" / f"{name}.png")
    output = run("evaluate", folder / "pictures", "--out", folder / "evaluated", "--codecs", "jpeg,webp", "--metrics",
                 "rgb_psnr,fsim")  # fmt: skip
    assert output.endswith(f"wrote {folder / 'evaluated' / 'index.html'}\n")
    write_bundle(make.small_model("cpu"), folder / "bundle")
    run("profile", "--bundle", folder / "bundle", "--images", folder / "pictures", "--runs", 2, "--out",
        folder / "profile", "--allow-hot")  # fmt: skip
    report = read_report(folder / "profile" / "profile.json")
    report["devices"][0]["runs"][0]["latency_metrics"]["decode"]["total"]["median_ms"] /= 3
    (folder / "before.json").write_text(json.dumps(report))
    CliRunner().invoke(
        app, ["profile", "compare", str(folder / "before.json"), str(folder / "profile" / "profile.json"), "--html",
              str(folder / "changes.html")],
    )  # fmt: skip
    original = folder / "pictures" / f"{HOSTILE[1]}.png"
    with Image.open(original) as image:
        image.save(folder / f"{HOSTILE[1]}.jpg", quality=30)
    run("compare", original, folder / f"{HOSTILE[1]}.jpg", "--metrics", "rgb_psnr,fsim", "--html",
        folder / "compared.html")  # fmt: skip
    return folder


PAGES = {
    "evaluated/index.html": HOSTILE,
    "profile/profile.html": HOSTILE,
    "changes.html": HOSTILE,
    "compared.html": HOSTILE[1:2],
}


class Parsed(HTMLParser):
    """The elements of a page, its text, and the JSON for its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.texts: list[str] = []
        self.json = ""
        self._reads_json = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.handlers += [name for name, _ in attributes if name.startswith("on")]
        self._reads_json = tag == "script" and ("type", "application/json") in attributes

    def handle_data(self, data):
        if self._reads_json:
            self.json += data
        else:
            self.texts.append(data)


@pytest.mark.parametrize("name", PAGES)
def test_names_are_text_in_pages(reports: Path, name: str) -> None:
    parsed = Parsed((reports / name).read_text("utf-8"))
    assert parsed.handlers == []
    assert parsed.tags.count("script") == (2 if parsed.json else 0)
    assert parsed.tags.count("img") == (2 if parsed.json else 0)
    shown = "\n".join(parsed.texts)
    if parsed.json:
        shown += json.dumps(json.loads(parsed.json), ensure_ascii=False).replace('\\"', '"').replace("\\\\", "\\")
    for hostile in PAGES[name]:
        assert hostile in shown


def test_pages_load_nothing(reports: Path) -> None:
    for name in PAGES:
        page = (reports / name).read_text("utf-8")
        assert not re.search(r"(src|href)=\"?http|url\(http|@import", page), name


@pytest.mark.parametrize("name", [*HOSTILE, *MORE])
def test_names_are_text_in_tables(name: str) -> None:
    """One row stays one row of as many cells; what is escaped, unescaped, is the name."""
    shown = printable(name)
    assert shown.isprintable()
    shown.encode()
    *_, row = Table("t", ("a", "b"), [[name, "x"]]).markdown()
    cells = re.split(r"(?<!\\)\|", row)
    assert len(cells) == 4
    assert re.sub(r"\\([\\`*_\[\]<>|~#&$])", r"\1", cells[1].strip()) == shown
    assert not re.search(r"(?<!\\)[<>\[\]`*]", markdown_text(name))


@pytest.mark.parametrize("name", [*HOSTILE, *MORE])
def test_names_of_devices_and_pictures_in_a_profile(reports: Path, name: str) -> None:
    report = copy.deepcopy(read_report(reports / "profile" / "profile.json"))
    (device,) = report["devices"]
    device["name"] = device["runs"][0]["image"] = name
    device["flags"], device["properties"]["model"] = [name], name
    parsed = Parsed(page([report]).decode())
    assert parsed.handlers == []
    assert {"img", "script"}.isdisjoint(parsed.tags)
    lines = markdown(report).encode("utf-8", "backslashreplace").decode().splitlines()
    assert f"## {markdown_text(name)}" in lines
    assert any(line.startswith(f"| {markdown_text(name)} | encode |") for line in lines)


def test_undecodable_names_are_printed(tmp_path: Path, picture) -> None:
    (tmp_path / "pictures").mkdir()
    Image.fromarray(picture(32, 48)).save(tmp_path / "one.png")
    for name in (b"\xff\xfe.png", b"a\nb\x1b[2J.png", b"[red]" + b"x" * 240 + b".png"):
        shutil.copyfile(tmp_path / "one.png", os.path.join(os.fsencode(tmp_path / "pictures"), name))  # noqa: PTH118
    out = tmp_path / "out"
    run("evaluate", tmp_path / "pictures", "--out", out, "--codecs", "jpeg", "--metrics", "rgb_psnr")
    results = json.loads((out / "evaluation.json").read_text())
    assert results["pictures"] == ["[red]" + "x" * 240, "a\\nb\\x1b[2J", "\\xff\\xfe"]


# --- in a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory):
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("there is no chromium or no chromedriver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    profile = tmp_path_factory.mktemp("chromium")
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-background-networking",
                     f"user-data-dir={profile}"):  # fmt: skip
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield started
    started.quit()


@pytest.fixture(scope="module")
def axe() -> str:
    import axe_core_python

    return (Path(axe_core_python.__file__).parent / "axe.min.js").read_text("utf-8")


def show(browser, path: Path, scheme: str = "light", width: int = 1200) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(path.as_uri())
    # Only a favicon that is not there may be missed.
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious(reports, browser, axe, name, scheme, width) -> None:
    show(browser, reports / name, scheme, width)
    browser.execute_script(axe)
    found = browser.execute_async_script(
        "const done = arguments[0]; axe.run().then(r => done(r), e => done({ error: String(e) }))"
    )
    serious = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
    assert [(v["id"], [node["html"][:200] for node in v["nodes"]]) for v in serious] == []
    assert len(found["passes"]) > 8
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


@pytest.mark.parametrize("name", ["evaluated/index.html", "compared.html"])
def test_the_slider_moves_by_keyboard_and_pointer(reports, browser, name) -> None:
    from selenium.webdriver import ActionChains, Keys
    from selenium.webdriver.common.by import By

    show(browser, reports / name)
    handle = browser.find_element(By.CSS_SELECTOR, "[role=slider]")
    assert handle.accessible_name == "Border between the left and the right picture"
    assert handle.aria_role == "slider"

    def state() -> tuple[int, str]:
        clip = browser.execute_script("return document.getElementById('left').style.clipPath")
        return int(handle.get_attribute("aria-valuenow")), clip

    browser.execute_script("document.activeElement.blur()")
    for _ in range(40):  # every control before it is reached by Tab, and so is it
        if browser.switch_to.active_element == handle:
            break
        ActionChains(browser).send_keys(Keys.TAB).perform()
    assert browser.switch_to.active_element == handle
    for keys, value in ((Keys.ARROW_LEFT, 49), (Keys.PAGE_UP, 59), (Keys.ARROW_UP, 60), (Keys.END, 100),
                        (Keys.ARROW_RIGHT, 100), (Keys.HOME, 0), (Keys.PAGE_DOWN, 0)):  # fmt: skip
        handle.send_keys(keys)
        assert state() == (value, f"inset(0px {100 - value}% 0px 0px)")
    stage = browser.find_element(By.ID, "stage")
    ActionChains(browser).move_to_element(stage).click_and_hold().move_by_offset(10, 0).release().perform()
    assert 50 < state()[0] < 80


def test_choices_show_other_pictures(reports, browser) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    show(browser, reports / "evaluated" / "index.html")
    note = browser.find_element(By.ID, "leftnote")
    before = note.text
    assert re.match(r"jpeg at \d+: [\d.]+ MB, [\d.]+ bpp, [\d.]+ dB$", before)
    Select(browser.find_element(By.ID, "leftname")).select_by_visible_text("webp")
    assert note.text.startswith("webp at")
    Select(browser.find_element(By.ID, "picture")).select_by_index(1)
    Select(browser.find_element(By.ID, "metric")).select_by_index(1)
    assert len(browser.find_elements(By.CSS_SELECTOR, "#chart polyline")) == 2
    assert browser.title == "Rate and distortion"
