"""Checks that a DEX file uses only what exists at an API level, or checks the level first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from signatures import ApiLevels

FRAMEWORK = ("Landroid/", "Ldalvik/", "Ljava/", "Ljavax/", "Lorg/json/", "Lorg/xmlpull/")
LEVEL = ("Landroid/os/Build$VERSION;", "SDK_INT")
# R8's levels leave out Object, whose methods were always there, and what StringBuilder has from a hidden class.
ALWAYS = {"clone", "equals", "finalize", "getClass", "hashCode", "notify", "notifyAll", "toString", "wait"}
HIDDEN = {"Ljava/lang/Object;-><init>", "Ljava/lang/StringBuilder;->setLength"}


def missing_at(level: int, lines: Iterable[str], stubs: Iterable[str], levels: ApiLevels) -> list[str]:
    """References that do not exist at an API level, one line each, sorted.

    lines: what References.java prints. stubs: the lines of `stub_lines`, for the superclasses. A method that reads
    Build.VERSION.SDK_INT is taken to have checked what it uses.
    """
    rows = [line.split() for line in lines]
    parents = {row[1]: row[2:] for row in rows if row[0] == "class"}
    own = set(parents)
    for line in stubs:
        if line.startswith("class "):
            _, name, _, *bases = line.split()
            parents.setdefault(f"L{name};", [f"L{base};" for base in bases])
    references = [row for row in rows if row[0] != "class"]
    checked = {where for _, where, owner, name, _ in references if (owner, name) == LEVEL}
    found = set()
    for name, bases in parents.items():
        for base in bases if name in own else ():
            if base.startswith(FRAMEWORK) and ((since := levels.of_class(base)) is None or since > level):
                found.add(f"{base}, extended by {name}: {f'API {since}' if since else 'unknown'}")
    for kind, where, owner, name, type_ in references:
        if where in checked or (kind == "method" and name in ALWAYS) or f"{owner}->{name}" in HIDDEN:
            continue
        if kind == "type":
            type_ = owner.lstrip("[")
            since = levels.of_class(type_) if type_.startswith(FRAMEWORK) else 1
            if since is None or since > level:
                found.add(f"{type_}, used in {where}: {f'API {since}' if since else 'unknown'}")
            continue
        ancestors = [c for c in _ancestors(owner, parents) if c.startswith(FRAMEWORK)]
        since = _since(kind, ancestors, name, type_, levels)
        # Members that an own class does not inherit from Android are its own; other libraries are in the APK.
        if since is None and (owner in own or not owner.startswith(FRAMEWORK)):
            continue
        if since is None or since > level:
            found.add(f"{owner}->{name} {type_}, used in {where}: {f'API {since}' if since else 'unknown'}")
    return sorted(found)


def _ancestors(owner: str, parents: dict[str, list[str]]) -> Iterator[str]:
    seen, waiting = set(), [owner]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            yield name
            waiting += parents.get(name, [])


def _since(kind: str, owners: list[str], name: str, type_: str, levels: ApiLevels) -> int | None:
    """The lowest level of a member in any class that may declare it."""
    if kind == "field":
        found = [levels.of_field(owner, name, type_) for owner in owners]
    else:
        parameters, _, returns = type_[1:].partition(")")
        split = re.findall(r"\[*(?:L[^;]+;|[A-Z])", parameters)
        found = [levels.of_method(owner, name, split, returns) for owner in owners]
    return min((one for one in found if one is not None), default=None)
