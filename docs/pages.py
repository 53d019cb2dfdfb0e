"""For mkdocs: a page that says only "This page is [...](../FILE)." shows that file of the repository."""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page's text; links of the file that lead to docs/ are made to fit the site."""
    link = re.fullmatch(r"This page is \[.*\]\(\.\./(.*)\)\.\s*", markdown)
    return (ROOT / link[1]).read_text().replace("](docs/", "](") if link else markdown
