"""The catalog's YAML files, read and written line by line, so that a fit changes its figures and no comment."""

import re
from pathlib import Path

FITTED_KEYS = ("bandwidth_efficiency", "compute_efficiency", "layer_seconds", "expert_factor",
               "prefill_compute_efficiency", "prefill_layer_seconds")
DTYPES = ("bf16", "fp8", "int8", "int4", "nvfp4", "mxfp4")
LINE = re.compile(r'^( *)(\w+): \{value: ([^,}]+), mark: (\w+),(?: error: [^,]+,)? source: "(.*)"\}$')
FOLLOWS = re.compile(r"\bas (its|[a-z0-9-]+)(?: (%s))?(?=$|[,;])" % "|".join(DTYPES))


def figure(value, mark, source, error=None):
    digits = 6 if float(value).is_integer() else 3
    text = f"value: {value:.{digits}g}, mark: {mark}, "
    if error is not None:
        text += f"error: {error:.2g}, "
    return '{%ssource: "%s"}' % (text, source)


class ChipFiles:
    """chips/*.yaml: which figures a chip has of its own, and which are said to be another's."""

    def __init__(self, catalog):
        self.paths = {path.stem: path for path in sorted(Path(catalog, "chips").glob("*.yaml"))}
        self.follows = {}  # (chip, dtype, key) -> the (chip, dtype, key) that its source names
        for chip, path in self.paths.items():
            for dtype, key, match in self._figures(path):
                named = FOLLOWS.search(match.group(5)) if match.group(4) == "assumed" else None
                if named and (named.group(1) == "its" or named.group(1) in self.paths):
                    leader = chip if named.group(1) == "its" else named.group(1)
                    self.follows[chip, dtype, key] = leader, named.group(2) or dtype, key

    @staticmethod
    def _figures(path):
        dtype = None
        for line in path.read_text().splitlines():
            section = re.match(r"^  (\w+):$", line)
            if section:
                dtype = section.group(1)
            match = LINE.match(line)
            if match and len(match.group(1)) == 4 and match.group(2) in FITTED_KEYS and dtype in DTYPES:
                yield dtype, match.group(2), match

    def leader(self, figure_name):
        while figure_name in self.follows:
            figure_name = self.follows[figure_name]
        return figure_name

    def all_like(self, leader):
        """The figure itself and all that follow it."""
        return [leader] + sorted(f for f in self.follows if self.leader(f) == leader)

    def rewritten(self, values):
        """{path: text} with `values`, {(chip, dtype, key): (value, error, source)}; followers take their leader's value."""
        texts = {}
        for chip, path in self.paths.items():
            dtype, lines = None, []
            for line in path.read_text().splitlines():
                section = re.match(r"^  (\w+):$", line)
                if section:
                    dtype = section.group(1)
                match = LINE.match(line)
                if match and len(match.group(1)) == 4:
                    name = chip, dtype, match.group(2)
                    indent, key, source = match.group(1), match.group(2), match.group(5)
                    if name in values:
                        value, error, source = values[name]
                        line = f"{indent}{key}: {figure(value, 'fitted', source, error)}"
                    elif self.leader(name) in values:
                        line = f"{indent}{key}: {figure(values[self.leader(name)][0], 'assumed', source)}"
                lines.append(line)
            texts[path] = "\n".join(lines) + "\n"
        return texts


def devices_rewritten(catalog, values):
    """{path: text} of devices/*.yaml with `values`, {(device, key of all_reduce): (value, error, mark, source)}."""
    texts = {}
    for path in sorted(Path(catalog, "devices").glob("*.yaml")):
        lines = []
        for line in path.read_text().splitlines():
            match = LINE.match(line)
            if match and (path.stem, match.group(2)) in values:
                value, error, mark, source = values[path.stem, match.group(2)]
                line = f"{match.group(1)}{match.group(2)}: {figure(value, mark, source, error)}"
            lines.append(line)
        texts[path] = "\n".join(lines) + "\n"
    return texts
