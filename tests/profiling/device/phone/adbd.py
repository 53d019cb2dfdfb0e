"""A phone for Debian's real `adb` client: the device side of its protocol, over TCP, for one root folder.

    python adbd.py PORT ROOT [--unauthorized]

Commands run in ROOT by chroot, so this starts inside a user and mount namespace (phone.sh). It has the services that
the profiler needs: shell (with exit codes, protocol v2), exec and sync (push, pull, stat). The protocol:
https://android.googlesource.com/platform/packages/modules/adb/+/refs/heads/main/protocol.txt
"""

from __future__ import annotations

import asyncio
import os
import shutil
import struct
import sys
from pathlib import Path

VERSION, MAX_DATA = 0x01000001, 256 * 1024
BANNER = b"device::ro.product.name=emulated;ro.product.model=emulated;ro.product.device=qemu;features=shell_v2,cmd"
STDOUT, STDERR, EXIT = 1, 2, 3
TOKEN = 1
CHROOT = shutil.which("chroot") or "/usr/sbin/chroot"


class Connection:
    """One adb server. Streams are numbered by its ids; data is sent only after the last was taken."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, root: Path, locked: bool) -> None:
        self.reader, self.writer, self.root, self.locked = reader, writer, root, locked
        self.streams: dict[int, Stream] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    async def send(self, command: bytes, first: int, second: int, data: bytes = b"") -> None:
        magic = int.from_bytes(command, "little") ^ 0xFFFFFFFF
        self.writer.write(struct.pack("<4s5I", command, first, second, len(data), sum(data) & 0xFFFFFFFF, magic) + data)
        await self.writer.drain()

    async def serve(self) -> None:
        try:
            while True:
                command, first, second, length, _, _ = struct.unpack("<4s5I", await self.reader.readexactly(24))
                data = await self.reader.readexactly(length)
                await self.handle(command, first, second, data)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            for stream in self.streams.values():
                stream.end()
            self.writer.close()

    async def handle(self, command: bytes, first: int, second: int, data: bytes) -> None:
        if command == b"CNXN" and not self.locked:
            await self.send(b"CNXN", VERSION, MAX_DATA, BANNER)
        elif command in (b"CNXN", b"AUTH"):
            await self.send(b"AUTH", TOKEN, 0, bytes(20))  # no key is accepted
        elif command == b"OPEN":
            stream = self.streams[first] = Stream(self, first)
            task = asyncio.create_task(stream.run(data.rstrip(b"\0").decode()))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        elif first in self.streams:
            stream = self.streams[first]
            if command == b"OKAY":
                stream.taken.set()
            elif command == b"WRTE":
                stream.arrived.feed_data(data)
                await self.send(b"OKAY", stream.number, first)
            elif command == b"CLSE":
                stream.end()


class Stream:
    """One service: `number` is both sides' id of it."""

    def __init__(self, connection: Connection, number: int) -> None:
        self.connection, self.number = connection, number
        self.arrived = asyncio.StreamReader()
        self.taken = asyncio.Event()
        self.open = True

    def end(self) -> None:
        self.open = False
        self.taken.set()
        self.arrived.feed_eof()

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), MAX_DATA):
            if not self.open:
                raise ConnectionResetError
            self.taken.clear()
            await self.connection.send(b"WRTE", self.number, self.number, data[start : start + MAX_DATA])
            await self.taken.wait()

    async def run(self, service: str) -> None:
        kind, _, argument = service.partition(":")
        name, *options = kind.split(",")
        try:
            if name in ("shell", "exec"):
                await self.connection.send(b"OKAY", self.number, self.number)
                await self.shell(argument, "v2" in options)
            elif name == "sync":
                await self.connection.send(b"OKAY", self.number, self.number)
                await self.sync()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            await self.connection.send(b"CLSE", self.number if self.open else 0, self.number)
            self.connection.streams.pop(self.number, None)

    async def shell(self, line: str, framed: bool) -> None:
        process = await asyncio.create_subprocess_exec(
            CHROOT, str(self.connection.root), "/system/bin/sh", "-c", line,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE if framed else asyncio.subprocess.STDOUT,
            env={"PATH": "/system/bin:/usr/bin:/bin"},
        )  # fmt: skip

        async def pump(source: asyncio.StreamReader | None, number: int) -> None:
            while source is not None and (data := await source.read(65536)):
                await self.write(struct.pack("<BI", number, len(data)) + data if framed else data)

        try:
            await asyncio.gather(pump(process.stdout, STDOUT), pump(process.stderr, STDERR))
            code = await process.wait()
            if framed:
                await self.write(struct.pack("<BIB", EXIT, 1, code & 255))
        finally:
            if process.returncode is None:
                process.kill()

    async def sync(self) -> None:
        while True:
            request, length = struct.unpack("<4sI", await self.arrived.readexactly(8))
            if request == b"QUIT":
                return
            name = (await self.arrived.readexactly(length)).decode()
            if request == b"STAT":
                await self.write(b"STAT" + struct.pack("<3I", *self.stat(name)))
            elif request == b"SEND":
                await self.receive(*name.rsplit(",", 1))
            elif request == b"RECV":
                await self.give(name)
            else:
                await self.fail("unknown request")
                return

    def path(self, name: str) -> Path:
        return self.connection.root / os.path.normpath("/" + name).lstrip("/")

    def stat(self, name: str) -> tuple[int, int, int]:
        try:
            found = self.path(name).stat()
        except OSError:
            return 0, 0, 0
        return found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime)

    async def fail(self, message: str) -> None:
        await self.write(b"FAIL" + struct.pack("<I", len(message)) + message.encode())

    async def receive(self, name: str, mode: str) -> None:
        problem, parts = "", []
        while True:
            kind, length = struct.unpack("<4sI", await self.arrived.readexactly(8))
            if kind == b"DONE":
                break
            parts.append(await self.arrived.readexactly(length))
        try:
            with self.path(name).open("wb", buffering=0) as file:
                for part in parts:
                    if file.write(part) < len(part):
                        raise OSError(28, "No space left on device")
            self.path(name).chmod(int(mode) & 0o777)
        except OSError as error:
            problem = f"couldn't write {name}: {error.strerror}"
        await (self.fail(problem) if problem else self.write(b"OKAY" + bytes(4)))

    async def give(self, name: str) -> None:
        try:
            data = self.path(name).read_bytes()
        except OSError as error:
            await self.fail(f"open failed: {error.strerror}")
            return
        for start in range(0, len(data), 65536):
            part = data[start : start + 65536]
            await self.write(b"DATA" + struct.pack("<I", len(part)) + part)
        await self.write(b"DONE" + bytes(4))


async def main() -> None:
    """Serve until killed; the first line of standard output says that the phone is there."""
    port, root, locked = int(sys.argv[1]), Path(sys.argv[2]), "--unauthorized" in sys.argv
    server = await asyncio.start_server(lambda r, w: Connection(r, w, root, locked).serve(), "127.0.0.1", port)
    print("ready", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
