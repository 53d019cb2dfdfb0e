"""Android's framework: signatures of API 36, and the first API level of each class, field and method.

The levels come from R8's own data: hashes of references with a level each, up to API 31. The signatures come from type
stubs for Python. Those tell int from long and float from double in parameters only; elsewhere the levels decide.
"""

from __future__ import annotations

import ast
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

PRIMITIVES = {
    "java.jint": "I", "java.jlong": "J", "java.jfloat": "F", "java.jdouble": "D", "java.jbyte": "B",
    "java.jshort": "S", "java.jboolean": "Z", "java.jchar": "C",
}  # fmt: skip
SIMPLE = {"int": "I", "float": "F", "bool": "Z", "None": "V", "str": "Ljava/lang/String;"}
WIDTHS = {"I": "IJSB", "F": "FD"}
OBJECT = "Ljava/lang/Object;"


class ApiLevels:
    """Levels by R8's 32-bit hashes of references; of 200,000, one reference in 20,000 is mistaken for another."""

    def __init__(self, r8: Path) -> None:
        with zipfile.ZipFile(r8) as jar:
            # Serialized Java arrays: a header, the length, the elements.
            hashes = jar.read("api_database/api_database_hash_lookup.ser")
            levels = jar.read("api_database/api_database_api_level.ser")
        count = int.from_bytes(levels[23:27], "big")
        keys = np.frombuffer(hashes[-4 * count :], ">u4").tolist()
        self._levels = dict(zip(keys, np.frombuffer(levels[-count:], np.int8).tolist(), strict=True))

    def of_class(self, descriptor: str) -> int | None:
        """The first level with a class, None when R8 knows no such class."""
        return self._level(_text(descriptor))

    def of_field(self, owner: str, name: str, descriptor: str) -> int | None:
        """The same for a field that `owner` declares."""
        return self._level(_text(owner) + 7 * _text(descriptor) + 31 * _text(name))

    def of_method(self, owner: str, name: str, parameters: list[str], returns: str) -> int | None:
        """The same for a method that `owner` declares."""
        shorty = "".join("L" if d[0] in "L[" else d for d in [returns, *parameters])
        proto = 7 * _text(shorty) + 13 * _text(returns) + 31 * _array(_text(p) for p in parameters)
        return self._level(7 * _text(owner) + 29 * proto + 31 * _text(name))

    def _level(self, code: int) -> int | None:
        level = self._levels.get(code & 0xFFFFFFFF)
        return None if level == -1 else level


def _array(values: Iterable[int]) -> int:
    """java.util.Arrays.hashCode"""
    code = 1
    for value in values:
        code = (31 * code + value) & 0xFFFFFFFF
    return code


def _text(text: str) -> int:
    return 7 * len(text) + _array(text.encode() + b"\0")


def stub_lines(folder: Path, levels: ApiLevels) -> Iterator[str]:
    """The stubs under `folder`, with names as in class files.

    class NAME class|interface BASE...    field OWNER NAME TYPE static|-    method OWNER NAME TYPE static|-
    """
    for path in sorted(folder.glob("*-stubs/**/__init__.pyi")):
        package = ".".join(path.parent.relative_to(folder).parts).replace("-stubs", "")
        if package.split(".")[0] in ("android", "dalvik", "java"):
            reader = _Reader(package, levels)
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef):
                    yield from reader.of_class(node, package.replace(".", "/") + "/" + node.name)


class _Reader:
    """Reads the classes of one package."""

    def __init__(self, package: str, levels: ApiLevels) -> None:
        self.package, self.levels = package, levels

    def of_class(self, node: ast.ClassDef, name: str) -> Iterator[str]:
        methods = [n for n in node.body if isinstance(n, ast.FunctionDef)]
        bases = " ".join(self.type(b)[1:-1] for b in node.bases if not ast.unparse(b).startswith("typing."))
        yield f"class {name} {'class' if any(m.name == '__init__' for m in methods) else 'interface'} {bases}"
        owner = f"L{name};"
        for n in node.body:
            if isinstance(n, ast.ClassDef):
                yield from self.of_class(n, f"{name}${n.name}")
            elif isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name):
                text = ast.unparse(n.annotation)
                static = text.startswith("typing.ClassVar[")
                inner = n.annotation.slice if static and isinstance(n.annotation, ast.Subscript) else n.annotation
                field = n.target.id
                found = self.widest(self.type(inner), partial(self.levels.of_field, owner, field))
                yield f"field {name} {field} {found} {'static' if static else '-'}"
        for m in methods:
            static = any(ast.unparse(d) == "staticmethod" for d in m.decorator_list)
            arguments = [*m.args.posonlyargs, *m.args.args][0 if static else 1 :]
            types = [self.type(a.annotation) for a in arguments]
            if m.args.vararg:
                types.append("[" + self.type(m.args.vararg.annotation))
            called = "<init>" if m.name == "__init__" else m.name
            returns = self.type(m.returns)
            returns = self.widest(returns, partial(self.levels.of_method, owner, called, types))
            yield f"method {name} {called} ({''.join(types)}){returns} {'static' if static else '-'}"

    def widest(self, found: str, level: Callable[[str], int | None]) -> str:
        """The width of a number that the stubs leave open, from R8's data; int and float where it has none."""
        return next((t for t in WIDTHS.get(found, "") if level(t) is not None), found)

    def type(self, node: ast.expr | None) -> str:
        """The descriptor of an annotation."""
        if node is None:
            return OBJECT
        if isinstance(node, ast.BinOp):  # int | java.jint | java.lang.Integer, or X | None
            names = _union(node)
            first = next((n for n in names if ast.unparse(n) in PRIMITIVES), None)
            others = [n for n in names if ast.unparse(n) not in ("None", "str", "int", "float", "bool")]
            return self.type(first or (others or names)[0])
        if isinstance(node, ast.Subscript):
            base = ast.unparse(node.value)
            if base == "java.chaquopy.JavaArray":
                return "[" + self.type(node.slice)
            return "Ljava/lang/Class;" if base == "typing.Type" else self.type(node.value)
        text = ast.unparse(node)
        if text in SIMPLE or text in PRIMITIVES:
            return SIMPLE.get(text) or PRIMITIVES[text]
        if text.startswith("java.chaquopy.JavaArrayJ"):
            return "[" + PRIMITIVES["java.j" + text.removeprefix("java.chaquopy.JavaArrayJ").lower()]
        parts = text.split(".")
        if parts[0] == "typing" or parts[0].startswith("_"):
            return OBJECT
        start = next((i for i, part in enumerate(parts) if part[0].isupper()), len(parts) - 1)
        package = parts[:start] or self.package.split(".")
        return "L" + "/".join([*package, "$".join(parts[start:])]) + ";"


def _union(node: ast.expr) -> list[ast.expr]:
    return [*_union(node.left), *_union(node.right)] if isinstance(node, ast.BinOp) else [node]
