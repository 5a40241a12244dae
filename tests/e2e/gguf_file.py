"""Just enough of the GGUF format to break a file on purpose: where its metadata and tensors lie.

Source of the layout: the GGUF specification, ggml-org/ggml docs/gguf.md.
"""
import struct

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9


class Gguf:
    """`values`: key to (offset of its value, type). `tensors`: name to (offset of its entry's name, offset in the data)."""

    def __init__(self, path):
        self.data = bytearray(open(path, "rb").read())
        magic, self.version, tensor_count, value_count = struct.unpack_from("<4sIQQ", self.data)
        assert magic == b"GGUF"
        self.at = 24
        self.values, self.tensors = {}, {}
        for _ in range(value_count):
            key = self._string()
            kind = self._number("<I")
            self.values[key] = (self.at, kind)
            self._skip(kind)
        for _ in range(tensor_count):
            start = self.at
            name = self._string()
            dimensions = self._number("<I")
            self.at += 8 * dimensions + 4  # their sizes, the type
            self.tensors[name] = (start + 8, self._number("<Q"))
        alignment = 32
        if "general.alignment" in self.values:
            alignment = struct.unpack_from("<I", self.data, self.values["general.alignment"][0])[0]
        self.data_start = (self.at + alignment - 1) // alignment * alignment

    def _number(self, form):
        value = struct.unpack_from(form, self.data, self.at)[0]
        self.at += struct.calcsize(form)
        return value

    def _string(self):
        size = self._number("<Q")
        text = bytes(self.data[self.at:self.at + size]).decode(errors="replace")  # vocabularies hold pieces of characters
        self.at += size
        return text

    def _skip(self, kind):
        if kind == STRING:
            self._string()
        elif kind == ARRAY:
            inner, count = self._number("<I"), self._number("<Q")
            if inner in SIZES:
                self.at += SIZES[inner] * count
            else:
                for _ in range(count):
                    self._skip(inner)
        else:
            self.at += SIZES[kind]

    def write(self, path, size=None):
        path.write_bytes(bytes(self.data[:size]))
        return path
