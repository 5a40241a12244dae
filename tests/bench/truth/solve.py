"""The bench program as a function of parameters, and the least squares over it."""

import hashlib
import subprocess

import numpy as np
from scipy.optimize import least_squares

TTFT_WEIGHT = 0.5      # of a TTFT's residual beside a TPOT's: its noise is larger
SOFT_SCALE = 0.08      # where soft_l1 turns from squares to absolute values, in log
PRIOR_SCALE = 0.1      # residual of a parameter that is one sigma from its start
STEP = 0.02            # of finite differences, in log; large, for a simulated loop is not smooth


class Rows:
    """The rows that can be predicted, by column."""

    def __init__(self, lines):
        fields = [line.rstrip("\n").split("\t") for line in lines]
        text = [np.array(column) for column in zip(*fields)]
        self.count = len(fields)
        self.chip, self.dtype, self.engine, self.version, self.shape = text[:5]
        self.prompt, self.output, self.concurrency, self.tp, self.ep = (c.astype(int) for c in text[5:10])
        self.inferencex = text[10] == "1"
        self.ttft, self.tpot = text[11].astype(float), text[12].astype(float)
        self.configuration = text[13]
        # Held out by configuration: a row's twins and repeats go where it goes.
        self.hash = np.array([int(hashlib.sha256(c.encode()).hexdigest()[:12], 16) for c in self.configuration])


class Bench:
    """truth_bench --serve."""

    def __init__(self, program, catalog, rows):
        self.process = subprocess.Popen([program, "--catalog", catalog, "--rows", rows, "--serve"],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.count = 0
        self.rows = Rows(self._ask("rows\n", None))

    def _ask(self, text, count):
        self.process.stdin.write(text)
        self.process.stdin.flush()
        if count is None:
            first = self.process.stdout.readline()
            if not first:
                raise SystemExit(f"fit.py: {self.process.args[0]} ended with {self.process.wait()}")
            count = self.count = int(first)
        return [self.process.stdout.readline() for _ in range(count)]

    def predict(self, what, parameters, x, fixed=()):
        """[rows, figures]: "steady" TPOT, "prompt" prefill, "loop" TTFT and TPOT, in ms; below 0 where it does not fit."""
        sets = [(target, float(np.exp(value))) for p, value in zip(parameters, x) for target in p.targets]
        sets += list(fixed)
        text = "clear\n" + "".join(f"set {k} {n} {key} {value:.12g}\n" for (k, n, key), value in sets)
        lines = self._ask(text + what + "\n", self.count)
        return np.array([[float(word) for word in line.split()] for line in lines])

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Problem:
    """One least-squares fit: parameters, what is simulated, and the rows it may look at."""

    def __init__(self, bench, parameters, what, train, fixed=()):
        self.bench, self.parameters, self.what, self.train, self.fixed = bench, parameters, what, train, fixed

    def predict(self, x):
        return self.bench.predict(self.what, self.parameters, x, self.fixed)

    def _errors(self, x):
        predicted, rows = self.predict(x), self.bench.rows
        fits = (predicted[:, 0] > 0) & self.train
        log = np.log(np.maximum(predicted, 1e-6))
        parts = [np.where(fits, log[:, -1] - np.log(rows.tpot), 0)]
        if self.what == "loop":
            parts.append(TTFT_WEIGHT * np.where(fits, log[:, 0] - np.log(rows.ttft), 0))
        error = np.concatenate(parts)
        # soft_l1 as a residual of its own, so that priors beside it stay squares.
        return np.sign(error) * SOFT_SCALE * np.sqrt(2 * (np.sqrt(1 + (error / SOFT_SCALE) ** 2) - 1))

    def _priors(self, x):
        return np.array([PRIOR_SCALE * (v - np.log(p.start)) / p.sigma for p, v in zip(self.parameters, x)])

    def residuals(self, x):
        return np.concatenate([self._errors(x), self._priors(x)])

    def jacobian(self, x):
        base = self._errors(x)
        parts = len(base) // self.bench.count
        jacobian = np.zeros((len(base), len(x)))
        families = {}
        for i, parameter in enumerate(self.parameters):
            families.setdefault(parameter.family, []).append(i)
        for members in families.values():
            moved = x.copy()
            moved[members] += STEP
            slope = (self._errors(moved) - base) / STEP
            for i in members:
                touched = np.tile(self.parameters[i].rows, parts)
                jacobian[touched, i] = slope[touched]
        return np.vstack([jacobian, np.diag([PRIOR_SCALE / p.sigma for p in self.parameters])])

    def start(self):
        return np.log([p.start for p in self.parameters])

    def solve(self, x, evaluations):
        low, high = np.log([p.low for p in self.parameters]), np.log([p.high for p in self.parameters])
        inside = np.clip(x, low + 1e-6, high - 1e-6)
        found = least_squares(self.residuals, inside, self.jacobian, bounds=(low, high), max_nfev=evaluations,
                              ftol=1e-4, xtol=1e-4)
        return found.x

    def covariance(self, x):
        """Of the logarithms, from the Jacobian; twins count once."""
        jacobian, residuals = self.jacobian(x), self.residuals(x)
        distinct = len(set(self.bench.rows.configuration[self.train])) / max(self.train.sum(), 1)
        free = max((len(residuals) - len(x)) * distinct - len(x), 1)
        variance = (residuals @ residuals) * distinct / free
        return np.linalg.pinv(jacobian.T @ jacobian * distinct) * variance


def median_error(predicted, measured, rows):
    rows = rows & (predicted > 0)
    return 100 * np.median(np.abs(predicted[rows] / measured[rows] - 1)) if rows.any() else float("nan")
