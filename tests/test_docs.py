"""The documents name only what exists: files, commands and options; their Python example runs."""

import re
from pathlib import Path

import pytest
import typer

from pocketlic.cli import app

ROOT = Path(__file__).resolve().parent.parent
# CHANGELOG.md tells of the past.
DOCUMENTS = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "codec/SPEC.md"} - {ROOT / "CHANGELOG.md"})
FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in ("build", "runs", ".venv")}


def spans(text):
    """What stands between backticks, and the lines of blocks, joined where a backslash continues them."""
    text = text.replace("\\\n", " ")
    blocks = re.findall(r"^```.*?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    inline = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    return [" ".join(span.split()) for span in inline] + [line for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_exist(path):
    for span in spans(path.read_text()):
        for name in re.findall(r"(?<![\w/.<-])[\w.-]+(?:/[\w.-]+)+", span):
            if name.split("/")[0] in FOLDERS and not re.search("FORMAT|NAME|ID", name):
                assert (ROOT / name.rstrip(".")).exists(), f"{name} in: {span}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_options_exist(path):
    for span in spans(path.read_text()):
        for line in re.findall(r"\bpocketlic ([a-z].*)", span.split("#")[0]):
            root, words = typer.main.get_command(app), line.split()
            command, context = root, typer.Context(root)
            while words and hasattr(command, "get_command") and (found := command.get_command(context, words[0])):
                command = found
                words.pop(0)
            assert command is not root, f"no such command: {line}"
            known = {name for parameter in command.params for name in parameter.opts} | {"--help", "--version"}
            unknown = {word for word in words if word.startswith("--")} - known
            assert not unknown, f"{unknown} in: {line}"


def test_the_python_example_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    text = (ROOT / "docs/quick-start.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    exec(compile(example, "quick-start.md", "exec"), {})
    assert "bits per pixel" in capsys.readouterr().out
