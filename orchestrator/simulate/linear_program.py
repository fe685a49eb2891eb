"""Linear programs: their arrays, HiGHS, and a bound that does not rest on the solver."""

from dataclasses import dataclass

import highspy
import numpy as np

from orchestrator.policy.arrays import Bools, Floats, Ints


@dataclass(frozen=True, slots=True)
class Entries:
    """Of a matrix."""

    row: Ints
    column: Ints
    value: Floats


@dataclass(frozen=True, slots=True)
class LinearProgram:
    """Minimise `cost @ x` where `lower <= x <= upper`, `row_lower <= A @ x <= row_upper`."""

    cost: Floats
    lower: Floats
    upper: Floats
    row_lower: Floats
    row_upper: Floats
    entries: Entries
    integer: Bools | None = None


@dataclass(frozen=True, slots=True)
class Solution:
    status: str
    x: Floats
    """NaN where no feasible point was found."""
    bound: float
    """No feasible point costs less."""
    wall_s: float

    @property
    def is_optimal(self) -> bool:
        return self.status == "Optimal"

    @property
    def is_late(self) -> bool:
        return self.status == "Time limit reached"

    @property
    def is_infeasible(self) -> bool:
        return self.status == "Infeasible"


class _Quiet(highspy.Highs):
    def enableCallbacks(self) -> None:
        # The first thing that an instance does, and what greets on standard output.
        self.silent()
        super().enableCallbacks()  # type: ignore[no-untyped-call]


def solve(program: LinearProgram, time_limit_s: float) -> Solution:
    """ValueError where its numbers are beyond what HiGHS takes."""
    highs = _Quiet()  # type: ignore[no-untyped-call]
    for option, value in (
        ("threads", 1),
        ("time_limit", time_limit_s),
        # A vertex is of no use here, and finding one takes longer than the rest.
        ("solver", "choose" if program.integer is not None else "ipm"),
        ("run_crossover", "off"),
    ):
        highs.setOptionValue(option, value)
    if _pass(highs, program) == highspy.HighsStatus.kError:
        raise ValueError("work or prices are too large for the solver")
    highs.run()
    if highs.getModelStatus() == highspy.HighsModelStatus.kUnknown:
        # The interior point is not near enough to the optimum: a vertex is.
        highs.setOptionValue("run_crossover", "on")
        highs.run()
    solution, info = highs.getSolution(), highs.getInfo()
    found = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    x = np.array(solution.col_value) if found else np.full(len(program.cost), np.nan)
    if program.integer is not None:
        bound = float(info.mip_dual_bound)
    else:
        rows = len(program.row_lower)
        duals = np.array(solution.row_dual) if solution.dual_valid else np.zeros(rows)
        bound = weak_bound(program, duals)
    status = highs.modelStatusToString(highs.getModelStatus())
    return Solution(status=status, x=x, bound=bound, wall_s=float(highs.getRunTime()))


def weak_bound(program: LinearProgram, duals: Floats) -> float:
    """By weak duality: whatever the duals are, no feasible point costs less, but for the rounding
    of floats."""
    entries = program.entries
    y = np.where(np.isneginf(program.row_lower), np.minimum(duals, 0), duals)
    y = np.where(np.isposinf(program.row_upper), np.maximum(y, 0), y)
    reduced = program.cost - np.bincount(
        entries.column, entries.value * y[entries.row], len(program.cost)
    )
    return _least(y, program.row_lower, program.row_upper) + _least(
        reduced, program.lower, program.upper
    )


def _least(factor: Floats, lower: Floats, upper: Floats) -> float:
    at = np.where(factor > 0, lower, upper)
    weighs = factor != 0
    return float(factor[weighs] @ at[weighs])


def _pass(highs: highspy.Highs, program: LinearProgram) -> highspy.HighsStatus:
    entries, columns = program.entries, len(program.cost)
    order = np.argsort(entries.column, kind="stable")
    starts = np.zeros(columns + 1, np.int32)
    np.cumsum(np.bincount(entries.column, minlength=columns), out=starts[1:])
    kinds = np.zeros(columns, np.int32)
    if program.integer is not None:
        kinds[program.integer] = int(highspy.HighsVarType.kInteger)
    return highs.passModel(
        columns,
        len(program.row_lower),
        len(entries.value),
        int(highspy.MatrixFormat.kColwise),
        int(highspy.ObjSense.kMinimize),
        0.0,
        program.cost,
        program.lower,
        program.upper,
        program.row_lower,
        program.row_upper,
        starts,
        entries.row[order].astype(np.int32),
        entries.value[order],
        kinds,
    )
