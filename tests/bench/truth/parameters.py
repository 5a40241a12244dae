"""What a fit may change: figures of the catalog, where each starts, how far it may go, and which rows it touches.

Every parameter is a positive number and is fitted as its logarithm. A prior of width `sigma` (in log) around the start holds
what few rows decide; engines' factors start at 1, so that what the rows do not ask for stays 1.
"""

from dataclasses import dataclass

import numpy as np

from catalog_text import FITTED_KEYS

ENGINES = ("sglang", "tensorrt-llm", "vllm")
FEWEST_ROWS = 15       # of a chip and dtype, for figures of its own
FEWEST_FACTOR_ROWS = 5
COUNTS = (2, 4, 8)     # of the chips that share a layer


@dataclass
class Parameter:
    family: str        # parameters of one family touch different rows: one evaluation perturbs all of them
    targets: list      # [(kind, name, key)], all set to the value
    start: float
    sigma: float
    low: float
    high: float
    rows: np.ndarray   # mask: which rows it touches

    @property
    def name(self):
        return "/".join(self.targets[0])


# Where the fit of facts/cost-fit.md left chips and engines; others start as their nearest relative.
STARTS = {
    ("h100-sxm", "bf16"): (.94, .72, 36e-6, .60, 165e-6), ("h100-sxm", "fp8"): (.92, .36, 35e-6, .75, 56e-6),
    ("h100-sxm", "mxfp4"): (.92, .24, 25e-6, .34, 48e-6), ("h200-sxm", "fp8"): (.75, .94, 46e-6, 1.0, 137e-6),
    ("h200-sxm", "int4"): (.71, .35, 44e-6, .57, 140e-6), ("h200-sxm", "mxfp4"): (.87, .21, 42e-6, .37, 60e-6),
    ("b200-sxm", "bf16"): (.78, .20, 31e-6, .97, 166e-6), ("b200-sxm", "fp8"): (.81, .37, 39e-6, .54, 201e-6),
    ("b200-sxm", "nvfp4"): (.73, .38, 34e-6, .59, 216e-6), ("b200-sxm", "int4"): (.51, .19, 48e-6, .22, 153e-6),
    ("b200-sxm", "mxfp4"): (1.0, .22, 20e-6, .48, 53e-6), ("b300-sxm", "fp8"): (.94, .16, 43e-6, .37, 85e-6),
    ("b300-sxm", "nvfp4"): (.91, .40, 32e-6, .38, 91e-6), ("b300-sxm", "bf16"): (1.0, .37, 26e-6, .88, 69e-6),
}
# key: (position in STARTS, sigma, low, high)
CHIP_KEYS = {"bandwidth_efficiency": (0, .5, .15, 1.0), "compute_efficiency": (1, .2, .02, 1.0),
             "layer_seconds": (2, .7, 2e-6, 300e-6), "prefill_compute_efficiency": (3, .7, .03, 1.0),
             "prefill_layer_seconds": (4, 1.0, 1e-6, 3e-3)}
EXPERT_START, EXPERT_SIGMA = 2.06, .3
ENGINE_STARTS = {"sglang": (1450e-6, 34e-6, .61), "vllm": (820e-6, 21e-6, .79), "tensorrt-llm": (380e-6, 15e-6, .73)}

# Terms of the full model: what they are, with the width of their priors.
FULL = {
    "interference": True, "engine": True, "expert": True,
    "model": {"memory": .2, "fixed": .2, "prefill_compute": .4, "prefill_fixed": .4},
    "kernels": {"memory": .2, "fixed": .2, "compute": .2, "prefill_compute": .4, "prefill_fixed": .4},
    "port": {"decode": .3, "prefill": .5},     # of a model on an engine
    "version": {"decode": .2, "prefill": .3},  # of an engine, by model
}


def declare(rows, chips, terms):
    """The parameters of `terms`. rows: Bench.rows; chips: ChipFiles."""
    parameters = []

    def add(family, targets, start, sigma, low, high, touched):
        if touched.any():
            parameters.append(Parameter(family, targets, start, sigma, low, high, touched))

    def leader_of(i):  # whose figures row i is predicted with
        return chips.leader((rows.chip[i], rows.dtype[i], "layer_seconds"))[:2]

    leaders = np.array(["/".join(leader_of(i)) for i in range(rows.count)])
    for leader in sorted(set(leaders)):
        chip, dtype = leader.split("/")
        touched = leaders == leader
        starts = STARTS[chip, dtype]
        for key, (position, sigma, low, high) in CHIP_KEYS.items():
            targets = [("chip", c, f"{d}.{k}") for c, d, k in chips.all_like((chip, dtype, key))]
            add(key, targets, starts[position], sigma, low, high, touched)
        if terms.get("expert"):
            targets = [("chip", c, f"{d}.{k}") for c, d, k in chips.all_like((chip, dtype, "expert_factor"))]
            add("expert_factor", targets, EXPERT_START, EXPERT_SIGMA, .6, 8, touched)
    for generation in (("h100", "h200"), ("b200", "b300", "gb200", "gb300", "vera-rubin")):
        targets = [f"{group}-x{count}" for group in generation for count in COUNTS]
        touched = (rows.tp > 1) & np.array([any(c.startswith(g) for g in generation) for c in rows.chip])
        if terms.get("engine"):
            for key, start, low in (("base_seconds", 3.9e-6, 1e-7), ("doubling_seconds", 2.1e-6, 1e-8)):
                add(key, [("device", d, f"all_reduce.{key}") for d in targets], start, .7, low, 1e-4, touched)
    for engine in ENGINES:
        of_engine = rows.engine == engine
        step, sequence, share = ENGINE_STARTS[engine]
        if terms.get("engine"):
            add("step", [("engine", engine, "step_seconds")], step, .7, 1e-5, 2e-2, of_engine)
            add("sequence", [("engine", engine, "sequence_seconds")], sequence, .7, 1e-6, 1e-3, of_engine)
        if terms.get("interference"):
            add("share", [("engine", engine, "prefill_share")], share, .4, .1, 1.8, of_engine)
        if terms.get("waiting"):
            add("request", [("engine", engine, "request_seconds")], 20e-3, 1, 1e-3, .5, of_engine)
            add("open", [("engine", engine, "open_request_seconds")], 3e-4, 1, 1e-6, 2e-2, of_engine)

        def scoped(kind, scope, touched):
            if touched.sum() >= FEWEST_FACTOR_ROWS:
                for key, sigma in terms.get(kind, {}).items():
                    add(f"{kind}.{key}", [("engine", engine, f"factors.{scope}.{key}")], 1, sigma, .1, 10, touched)

        for leader in sorted(set(leaders)):
            chip, dtype = leader.split("/")
            scoped("kernels", leader, of_engine & (rows.chip == chip) & (rows.dtype == dtype))
        for shape in sorted(set(rows.shape)):
            of_shape = of_engine & (rows.shape == shape)
            scoped("port", shape, of_shape)
            versions = sorted(set(rows.version[of_shape]))
            for version in versions if len(versions) > 1 else []:
                scoped("version", f"{shape}@{version}", of_shape & (rows.version == version))
    for shape in sorted(set(rows.shape)):
        for key, sigma in terms.get("model", {}).items():
            targets = [("engine", engine, f"factors.{shape}.{key}") for engine in ENGINES]
            add(f"model.{key}", targets, 1, sigma, .1, 10, rows.shape == shape)
    return parameters
