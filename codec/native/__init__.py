"""The native core's sources, for whoever compiles them without CMake: phones, the determinism matrix, the tests."""

from pathlib import Path

NATIVE = Path(__file__).parent
COMPILE = ["-pthread", f"-I{NATIVE / 'include'}", f"-I{NATIVE / 'src'}"]
CORE = sorted(map(str, (NATIVE / "src").rglob("*.cpp")))
TOOL = [str(NATIVE / "tool" / "plic_tool.cpp"), *CORE]
