"""Fuzzes the Python entry points by atheris: python entry.py MODEL [libFuzzer options]. Inputs as for core.cpp."""

import inspect
import sys
from pathlib import Path

import atheris

from pocketlic.codec import format as plic
from pocketlic.codec._native import NativeDecoder
from pocketlic.codec.codec import Codec
from pocketlic.codec.errors import PlicError
from pocketlic.quantization import model as integer_model
from pocketlic.quantization import model_file, network
from pocketlic.quantization.errors import ModelError
from pocketlic.quantization.model import IntegerModel

LIMIT = 1 << 16


def main() -> None:
    """Both decoders must accept the same files and models, and raise only their own errors."""
    content = Path(sys.argv.pop(1)).read_bytes()
    model = IntegerModel.from_bytes(content)
    codec, native = Codec(model), NativeDecoder(content)

    def symbols(decode, data):
        try:
            return decode(data)
        except PlicError:
            return None

    def read(data):
        found = codec.read_symbols(plic.read(data, LIMIT))
        return found.z.tobytes(), found.y.tobytes(), found.details.tobytes()

    def read_native(data):
        return tuple(array.tobytes() for array in native.symbols(data, LIMIT))

    def opens(open_model, data):
        try:
            open_model(data)
        except ModelError:
            return False
        return True

    def one(data):
        kind, data = (data[0] & 3, data[1:]) if data else (0, b"")
        if kind == 3:
            if opens(IntegerModel.from_bytes, data) != opens(NativeDecoder, data):
                raise AssertionError("one of the readers takes this model")
            return
        if kind == 2:
            header = plic.Header(70, 50, False, data[0] * 39 if data else 0, codec.model_id)
            data = plic.write(plic.PlicFile(header, (data[1:],)))
        elif kind == 1 and len(data) >= 20:
            data = plic.MAGIC + bytes([plic.VERSION]) + data[5:6] + codec.model_id + data[14:-4]
            data += plic.crc32c(data).to_bytes(4, "little")
        if symbols(read, data) != symbols(read_native, data):
            raise AssertionError("the decoders differ")

    # Functions one by one: atheris does not see imports through an editable installation's finder.
    for module in (plic, network, model_file, integer_model):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__:
                setattr(module, name, atheris.instrument_func(function))
        for _, cls in inspect.getmembers(module, inspect.isclass):
            for function in vars(cls).values() if cls.__module__ == module.__name__ else ():
                if inspect.isfunction(function):
                    function.__code__ = atheris.instrument_func(function).__code__
    IntegerModel.from_bytes = staticmethod(atheris.instrument_func(IntegerModel.from_bytes))
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
