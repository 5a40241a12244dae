#!/usr/bin/env python3
"""Fits the catalog's coefficients to measured serving, and says how well they predict.

The formula is production's: truth_bench (C++, scheduler/cost and scheduler/planner) predicts, this script only searches.
Start, priors, steps and library versions are fixed, so a second run writes the same bytes.

  fit.py --bench B --catalog DIR --rows FILE --write      fits all rows and writes chips/, devices/ and engines/
  fit.py ... --check                                      fits, writes nothing, fails where a file would change
  fit.py ... --held-out | --ablation | --leave-out        tables of errors on rows that a fit has not seen
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from catalog_text import ChipFiles, devices_rewritten, figure
from parameters import COUNTS, ENGINES, FULL, declare
from solve import Bench, Problem, median_error

FIT_DATE = "2026-11-28"
FOLDS = 4  # one of which is held out
STEADY_EVALUATIONS, LOOP_EVALUATIONS = 14, 12
TERMS = FULL | {"waiting": True}

ENGINE_ASSUMED = {
    "step_tokens": (8192, "max-num-batched-tokens of InferenceX's servers, where they state one"),
    "kv_element_bytes": (1, "fp8 KV beside fp8 and 4-bit weights: fits the rows better than 16 bits"),
}
KV_RESERVE = {"tensorrt-llm": (1, "its scheduler evicts nothing: all of the output is reserved"),
              "sglang": (0.5, "it reserves a share that moves with the load; half stands for it"),
              "vllm": (0.5, "it reserves none and preempts what runs; half stands for it")}


def source(count):
    return f"fitted {FIT_DATE} by tests/bench/truth/fit.py on {count} InferenceX rows"


def fixed_figures():
    """What predictions need and no fit changes, so that the files' state does not matter."""
    fixed = []
    for engine in ENGINES:
        values = ENGINE_ASSUMED | {"kv_reserve": KV_RESERVE[engine]}
        fixed += [(("engine", engine, key), float(value)) for key, (value, _) in values.items()]
    return fixed


def fit(bench, chips, train, terms=None, steady=STEADY_EVALUATIONS, loop=LOOP_EVALUATIONS):
    """The full model on `train`: first the steady state, which is cheap, then the simulated loop."""
    parameters = declare(bench.rows, chips, terms or TERMS)
    steady_problem = Problem(bench, parameters, "steady", train, fixed_figures())
    x = steady_problem.solve(steady_problem.start(), steady)
    problem = Problem(bench, parameters, "loop", train, fixed_figures())
    return problem, (problem.solve(x, loop) if loop else x)


def engine_text(engine, figures, factors, rows):
    lines = [f"# Written by tests/bench/truth/fit.py. Factors multiply seconds; what is not here is 1.", f"name: {engine}",
             f'source: "fitted to what InferenceX and aiconfigurator measured of it, {rows} rows"']
    lines += [f"{key}: {text}" for key, text in figures.items()]
    lines.append("factors:")
    for scope in sorted(factors):
        lines.append(f"  {scope}:")
        lines += [f"    {key}: {text}" for key, text in sorted(factors[scope].items())]
    return "\n".join(lines) + "\n"


def written(catalog, chips, problem, x, covariance):
    """{path: text} of every file that the fit owns."""
    errors = np.sqrt(np.maximum(np.diag(covariance), 0))
    chip_values, device_values, engines = {}, {}, {e: ({}, {}) for e in ENGINES}
    for parameter, value, error in zip(problem.parameters, np.exp(x), errors):
        count = int(parameter.rows.sum())
        for i, (kind, name, key) in enumerate(parameter.targets):
            if kind == "chip" and i == 0:
                dtype, figure_key = key.split(".")
                chip_values[name, dtype, figure_key] = value, error, source(count)
            elif kind == "device":
                of_rows = name.split("-")[0] in ("h100", "h200", "b200", "b300")
                mark = "fitted" if of_rows else "assumed"
                device_values[name, key.split(".")[1]] = (value, error if of_rows else None, mark,
                                                          source(count) if of_rows else "as b200-x8")
            elif kind == "engine" and not key.startswith("factors."):
                engines[name][0][key] = figure(value, "fitted", source(count), error)
            elif kind == "engine":
                scope, factor = key[len("factors."):].rsplit(".", 1)
                own = int((parameter.rows & (problem.bench.rows.engine == name)).sum())
                if own:
                    engines[name][1].setdefault(scope, {})[factor] = figure(value, "fitted", source(count), error)
    texts = chips.rewritten(chip_values) | devices_rewritten(catalog, device_values)
    for engine, (figures, factors) in engines.items():
        for key, (value, why) in (ENGINE_ASSUMED | {"kv_reserve": KV_RESERVE[engine]}).items():
            figures[key] = figure(value, "assumed", why)
        rows = int((problem.bench.rows.engine == engine).sum())
        texts[Path(catalog, "engines", f"{engine}.yaml")] = engine_text(engine, figures, factors, rows)
    return texts


def errors_line(name, predicted, rows, mask):
    return (f"| {name} | {int(mask.sum())} | {median_error(predicted[:, 1], rows.tpot, mask):.1f} "
            f"| {median_error(predicted[:, 0], rows.ttft, mask):.1f} |")


def split(bench, chips):
    """(mask of the held-out quarter, the problem fitted on the rest, its solution); fitted once a run."""
    if not hasattr(bench, "held_out"):
        test = bench.rows.hash % FOLDS == 0
        bench.held_out = (test, *fit(bench, chips, ~test))
    return bench.held_out


def held_out(bench, chips, _catalog):
    rows = bench.rows
    test, problem, x = split(bench, chips)
    predicted = problem.predict(x)
    print(f"A quarter is held out, by a hash of the configuration: {int((~test).sum())} rows are fitted, {int(test.sum())} are "
          f"not seen. {len(problem.parameters)} coefficients, {len(set(rows.configuration))} configurations.\n")
    print("| rows | n | TPOT median error % | TTFT median error % |\n|---|---|---|---|")
    print(errors_line("fitted", predicted, rows, ~test))
    print(errors_line("unseen", predicted, rows, test))
    for name, column in (("chip", rows.chip), ("model", rows.shape), ("weights", rows.dtype), ("engine", rows.engine),
                         ("TP", rows.tp)):
        for value in sorted(set(column)):
            print(errors_line(f"unseen, {name} {value}", predicted, rows, test & (column == value)))
    for value, label in ((True, "InferenceX"), (False, "aiconfigurator")):
        print(errors_line(f"unseen, client {label}", predicted, rows, test & (rows.inferencex == value)))


def roofline(bench, chips):
    """Starts with every coefficient as a data sheet has it."""
    fixed = fixed_figures()
    for chip, dtype in sorted(set(zip(bench.rows.chip, bench.rows.dtype))):
        for key, value in (("bandwidth_efficiency", 1), ("compute_efficiency", 1), ("layer_seconds", 0), ("expert_factor", 1),
                           ("prefill_compute_efficiency", 1), ("prefill_layer_seconds", 0)):
            fixed.append((("chip", str(chip), f"{dtype}.{key}"), value))
    for engine in ENGINES:
        fixed += [(("engine", engine, key), 0) for key in
                  ("step_seconds", "sequence_seconds", "prefill_share", "request_seconds", "open_request_seconds")]
    for group in ("h100", "h200", "b200", "b300", "gb200"):
        for count in COUNTS:
            fixed += [(("device", f"{group}-x{count}", f"all_reduce.{key}"), 0)
                      for key in ("base_seconds", "doubling_seconds")]
    return fixed


ABLATION = (
    ("+ bandwidth and compute efficiency, t0, by chip and weights", {}),
    ("+ t0 of a layer with experts", {"expert": True}),
    ("+ share of arriving prompts' prefill that a step waits", {"expert": True, "interference": True}),
    ("+ all-reduce, engines' time a step and a sequence", {"expert": True, "interference": True, "engine": True}),
    ("+ factors by model", {"expert": True, "interference": True, "engine": True, "model": FULL["model"]}),
    ("+ factors by engine, chip and weights", FULL | {"version": {}, "port": {}}),
    ("+ factors by engine and model", FULL | {"version": {}}),
    ("+ factors by engine's version and model", FULL),
)


def ablation(bench, chips, _catalog):
    rows = bench.rows
    test = rows.hash % FOLDS == 0
    bare = roofline(bench, chips)
    print(f"Fitted on {int((~test).sum())} rows, tested on {int(test.sum())} whose configurations are not among them.\n")
    print("| TPOT model, steady state | coefficients | fitted % | unseen % |\n|---|---|---|---|")
    steady = bench.predict("steady", [], [], bare)[:, 0]
    print(f"| strict roofline | 0 | | {median_error(steady, rows.tpot, test):.1f} |", flush=True)
    for name, terms in ABLATION:
        parameters = declare(rows, chips, terms)
        problem = Problem(bench, parameters, "steady", ~test, bare)
        problem.fixed = [(t, v) for t, v in bare if t not in {u for p in parameters for u in p.targets}]
        x = problem.solve(problem.start(), STEADY_EVALUATIONS)
        predicted = problem.predict(x)[:, 0]
        print(f"| {name} | {len(parameters)} | {median_error(predicted, rows.tpot, ~test):.1f} "
              f"| {median_error(predicted, rows.tpot, test):.1f} |", flush=True)
    test, problem, x = split(bench, chips)
    loop = problem.predict(x)
    print(f"| the same, simulated with its client | {len(problem.parameters)} "
          f"| {median_error(loop[:, 1], rows.tpot, ~test):.1f} | {median_error(loop[:, 1], rows.tpot, test):.1f} |")
    print("\n| TTFT model | unseen % |\n|---|---|")
    bare_prompt = bench.predict("prompt", [], [], bare)[:, 0]
    print(f"| one prompt, strict roofline | {median_error(bare_prompt, rows.ttft, test):.1f} |")
    prompt = bench.predict("prompt", problem.parameters, x, problem.fixed)[:, 0]
    print(f"| one prompt, fitted | {median_error(prompt, rows.ttft, test):.1f} |")
    simple = {k: v for k, v in TERMS.items() if k not in ("model", "kernels", "port", "version")}
    plain, y = fit(bench, chips, ~test, simple)
    print(f"| its client simulated: burst, chunks, KV queue; by chip, weights and engine | "
          f"{median_error(plain.predict(y)[:, 0], rows.ttft, test):.1f} |")
    print(f"| + factors by model, by engine, chip and weights, by version | {median_error(loop[:, 0], rows.ttft, test):.1f} |")


def leave_out(bench, chips, _catalog):
    rows = bench.rows
    print("TPOT, steady state: nothing of a whole model, or of a whole chip, is seen.\n")
    print("| left out | n | TPOT median error % |\n|---|---|---|")
    totals = {}
    for kind, column in (("model", rows.shape), ("chip", rows.chip)):
        unseen = np.full(rows.count, -1.0)
        for value in sorted(set(column)):
            test = column == value
            problem, x = fit(bench, chips, ~test, loop=0)
            unseen[test] = bench.predict("steady", problem.parameters, x, problem.fixed)[test, 0]
            print(f"| {kind} {value} | {int(test.sum())} | {median_error(unseen, rows.tpot, test):.1f} |", flush=True)
        totals[kind] = median_error(unseen, rows.tpot, np.ones(rows.count, bool))
    for kind, error in totals.items():
        print(f"| any {kind} | {rows.count} | {error:.1f} |")


def all_reduce_by_tp(problem, x, covariance):
    """What an all-reduce takes before its bytes: base and doublings are known less well than their sum."""
    rows, families = problem.bench.rows, {"base_seconds": [], "doubling_seconds": []}
    for i, parameter in enumerate(problem.parameters):
        families.get(parameter.family, []).append(i)
    print("\n| all-reduce, chips like | TP | n | us | standard error of its logarithm |\n|---|---|---|---|---|")
    for pair in zip(*families.values()):
        parameter, (base, doubling) = problem.parameters[pair[0]], np.exp(x[list(pair)])
        for doublings, count in enumerate(COUNTS):
            seconds = base + doublings * doubling
            slope = np.array([base, doublings * doubling]) / seconds
            error = np.sqrt(slope @ covariance[np.ix_(pair, pair)] @ slope)
            name, n = parameter.targets[0][1].split("-")[0], int((parameter.rows & (rows.tp == count)).sum())
            print(f"| {name} | {count} | {n} | {1e6 * seconds:.2f} | {error:.2f} |")
    print()


def write(bench, chips, catalog):
    problem, x = fit(bench, chips, np.ones(bench.rows.count, bool))
    predicted, rows = problem.predict(x), bench.rows
    everything = np.ones(rows.count, bool)
    print("| rows | n | TPOT median error % | TTFT median error % |\n|---|---|---|---|")
    print(errors_line("fitted", predicted, rows, everything))
    covariance = problem.covariance(x)
    all_reduce_by_tp(problem, x, covariance)
    return written(catalog, chips, problem, x, covariance)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", required=True)
    parser.add_argument("--catalog", required=True)
    parser.add_argument("--rows", required=True)
    for option in ("--write", "--check", "--held-out", "--ablation", "--leave-out"):
        parser.add_argument(option, action="store_true")
    options = parser.parse_args()
    bench, chips = Bench(options.bench, options.catalog, options.rows), ChipFiles(options.catalog)
    changed = []
    if options.write or options.check:
        for path, text in write(bench, chips, options.catalog).items():
            if not path.exists() or path.read_text() != text:
                changed.append(str(path))
                if options.write:
                    path.write_text(text)
        print(f"{len(changed)} files {'changed' if options.write else 'would change'}: {', '.join(changed)}")
    for chosen, table in ((options.held_out, held_out), (options.ablation, ablation), (options.leave_out, leave_out)):
        if chosen:
            table(bench, chips, options.catalog)
            print(flush=True)
    bench.close()
    return 1 if options.check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
