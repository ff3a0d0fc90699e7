"""Expressions over features, such as `-1 + (hypot(tip.x - 0.4, tip.y - 0.22) < 0.04)`, as data and never as code.

`simpleeval` parses the text and walks its tree; nothing is compiled or run by Python. Of its nodes only those below are
accepted: numbers, features, arithmetic, comparisons, `and`, `or`, `not`, and calls of the functions in FUNCTIONS. A dot
is part of a feature's name and reaches no attribute of anything. All numbers are float64 from the start, so that no
power can grow past what fits, and the length of the text and the size of its tree are bounded. Every part is computed
for all steps at once, and must be finite: a comparison with NaN would otherwise be a quiet False.
"""

from __future__ import annotations

import ast
import difflib
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
from simpleeval import InvalidExpression, SimpleEval

from rql_core.errors import ContractError

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]

# What a person reads and checks fits here many times over; both only keep a mistake or an attack from taking long.
MAX_CHARACTERS = 2000
MAX_NODES = 400


def _power(base: Array, exponent: Array) -> Array:
    return np.asarray(np.power(base, exponent))


def _norm(*values: Array) -> Array:
    return np.asarray(np.sqrt(reduce(np.add, [value * value for value in values])))


def _clip(value: Array, lower: Array, upper: Array) -> Array:
    return np.minimum(np.maximum(value, lower), upper)


def _where(condition: Array, then: Array, otherwise: Array) -> Array:
    return np.where(condition != 0, then, otherwise)


#: What may be called: the function, how many values it takes (least, most; None: any number), and what it is.
FUNCTIONS: dict[str, tuple[Callable[..., Array], int, int | None, str]] = {
    "abs": (np.abs, 1, 1, "absolute value"),
    "sign": (np.sign, 1, 1, "-1, 0 or 1"),
    "min": (lambda *values: reduce(np.minimum, values), 2, None, "least of the values"),
    "max": (lambda *values: reduce(np.maximum, values), 2, None, "greatest of the values"),
    "clip": (_clip, 3, 3, "value kept between lower and upper"),
    "where": (_where, 3, 3, "second value where the first is true, else the third; both are computed"),
    "hypot": (lambda *values: reduce(np.hypot, values), 2, None, "Euclidean length of the values"),
    "norm": (_norm, 1, None, "root of the sum of squares"),
    "sqrt": (np.sqrt, 1, 1, "square root"),
    "exp": (np.exp, 1, 1, "exponential"),
    "log": (np.log, 1, 1, "natural logarithm"),
    "sin": (np.sin, 1, 1, "sine of radians"),
    "cos": (np.cos, 1, 1, "cosine of radians"),
    "tan": (np.tan, 1, 1, "tangent of radians"),
    "atan2": (np.arctan2, 2, 2, "angle of (y, x) in radians"),
    "tanh": (np.tanh, 1, 1, "hyperbolic tangent"),
    "floor": (np.floor, 1, 1, "greatest whole number not above"),
}
# How a number of a tick before the present one is named.
_PAST = re.compile(r"@t-\d+$")
_CONSTANTS = {"pi": np.pi}

_OPERATORS: dict[type[ast.AST], Callable[..., Array]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Mod: np.mod,
    ast.Pow: _power,
    ast.USub: np.negative,
    ast.UAdd: np.positive,
    ast.Not: lambda value: value == 0,
}
_COMPARISONS: dict[type[ast.AST], Callable[..., Array]] = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
}
_REFERENCES = (ast.Name, ast.Attribute, ast.Subscript)
_NODES = (*_REFERENCES, ast.Expr, ast.Constant, ast.UnaryOp, ast.BinOp, ast.BoolOp, ast.Compare, ast.Call)


class NotFiniteError(ContractError):
    """A part of an expression is NaN or infinite at `row` of the observations that it was given."""

    def __init__(self, message: str, row: int) -> None:
        super().__init__(message)
        self.row = row


class Expression:
    """A formula over the numbers of an observation, checked when it is made.

    `names`: what the numbers are called, `feature.field` each. A number is written as its feature and the last part of
    its field (`tip.x` for `tip.pose.position.x`), or as many of the last parts as tell it from others of the feature;
    or by its place in the feature, `tip[0]`; or as the feature alone where that has one number. Names mean the present
    tick; a feature's history is reached by place, the oldest tick first. Not thread-safe.
    """

    def __init__(self, text: str, names: Sequence[str]) -> None:
        """Raises ContractError that says what in `text` is not understood, and what there is instead."""
        self.text = text
        self._names = tuple(names)
        self._columns = _references(names)
        self._tree = self._parse()
        references = {node: self._columns[ast.unparse(node)] for node in self._check(self._tree)}
        self.columns = tuple(sorted(set(references.values())))
        """Which numbers of the observation it reads."""
        self._walker = _Walker(references)
        # Any numbers tell the kind of the result. Only a formula without features must be finite with them.
        value = self._value(np.ones((1, len(self._names))), finite=not self.columns)
        self.is_condition = value.dtype == np.bool_
        """It says yes or no rather than a number."""

    def __call__(self, observations: npt.NDArray[np.floating[Any]]) -> Array:
        """(rows, observation_dim) in physical units -> (rows,) float64, or bool for a condition.

        Raises NotFiniteError with the row, the part of the expression and the numbers that it came from.
        """
        value = self._value(observations, finite=True)
        return value if value.dtype == np.bool_ else value.astype(np.float64, copy=False)

    def _value(self, observations: npt.NDArray[np.floating[Any]], finite: bool) -> Array:
        # Columns of their own: numpy may compute a strided one by another path, which rounds differently.
        columns = {i: np.ascontiguousarray(observations[:, i], dtype=np.float64) for i in self.columns}
        with np.errstate(all="ignore"):
            try:
                value = self._walker.value(self.text, self._tree, columns, finite)
            except _PartNotFinite as error:
                raise NotFiniteError(self._describe(error, columns), error.row) from None
            except InvalidExpression as error:
                raise ContractError(f"expression {self.text!r}: {error}") from None
        return np.array(np.broadcast_to(value, (len(observations),)))

    def _describe(self, error: _PartNotFinite, columns: Mapping[int, Float64]) -> str:
        read = ", ".join(f"{self._names[i]} = {column[error.row]:.6g}" for i, column in columns.items())
        part = "" if error.part == self.text else f", because {error.part} is"
        return f"expression {self.text!r} is {error.value}{part}" + (f" (where {read})" if read else "")

    def _parse(self) -> ast.AST:
        if len(self.text) > MAX_CHARACTERS:
            raise ContractError(f"expression has {len(self.text)} characters, expected at most {MAX_CHARACTERS}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # Python only warns of `1(2)` and of a second expression
                tree: ast.AST = SimpleEval.parse(self.text)
        except (SyntaxError, ValueError, Warning, InvalidExpression, RecursionError, MemoryError) as error:
            detail = error.msg if isinstance(error, SyntaxError) else str(error) or type(error).__name__
            raise ContractError(f"expression {self.text!r} is no single formula: {' '.join(detail.split())}") from None
        return tree

    def _check(self, tree: ast.AST) -> list[ast.AST]:
        """Refuse what is not in the lists above; return the nodes that mean numbers of the observation."""
        count = sum(1 for _ in ast.walk(tree))
        if count > MAX_NODES:
            raise ContractError(f"expression {self.text[:60]!r}... has {count} parts, expected at most {MAX_NODES}")
        references: list[ast.AST] = []
        pending = [tree]
        while pending:
            node = pending.pop()
            if isinstance(node, _REFERENCES):
                if not (isinstance(node, ast.Name) and node.id in _CONSTANTS):
                    self._check_reference(node)
                    references.append(node)
            elif isinstance(node, ast.Call):
                self._check_call(node)
                pending += node.args
            elif isinstance(node, _NODES):
                self._check_part(node)
                pending += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
            else:
                raise self._refused(node, f"{type(node).__name__} is not accepted")
        return references

    def _check_reference(self, node: ast.AST) -> None:
        name = ast.unparse(node)
        if name not in self._columns:
            near = difflib.get_close_matches(name, self._columns, n=3, cutoff=0.5)
            there = near or sorted(self._columns)[:12]
            raise self._refused(node, f"there is no {name!r}, or it is not the only one; there is {', '.join(there)}")

    def _check_call(self, node: ast.Call) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in FUNCTIONS:
            raise self._refused(node.func, f"is no function here; there are {', '.join(FUNCTIONS)}")
        _, least, most, _ = FUNCTIONS[name]
        if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
            raise self._refused(node, "values are given by their place only")
        if len(node.args) < least or (most is not None and len(node.args) > most):
            expected = f"{least}" if least == most else f"at least {least}"
            raise self._refused(node, f"has {len(node.args)} values, expected {expected}")

    def _check_part(self, node: ast.AST) -> None:
        if isinstance(node, ast.Constant) and (isinstance(node.value, bool) or not isinstance(node.value, int | float)):
            raise self._refused(node, f"{type(node.value).__name__} is not accepted; expected a number")
        operators = node.ops if isinstance(node, ast.Compare) else [getattr(node, "op", None)]
        for operator in operators:
            known = (*_OPERATORS, *_COMPARISONS, ast.And, ast.Or)
            if operator is not None and not isinstance(operator, known):
                raise self._refused(node, f"operator {type(operator).__name__} is not accepted")

    def _refused(self, node: ast.AST, why: str) -> ContractError:
        return ContractError(f"expression {self.text!r}: {ast.unparse(node)[:80]!r}: {why}")


class _PartNotFinite(Exception):
    def __init__(self, part: str, row: int, value: float) -> None:
        super().__init__(part)
        self.part, self.row, self.value = part, row, value


class _Walker(SimpleEval):  # type: ignore[misc]  # simpleeval has no types
    """simpleeval for whole columns: names mean columns, and conditions hold step by step."""

    def __init__(self, references: Mapping[ast.AST, int]) -> None:
        super().__init__(
            operators=dict(_OPERATORS),
            functions={name: _on_numbers(function) for name, (function, *_) in FUNCTIONS.items()},
            names={},
        )
        for kind in set(self.nodes) - set(_NODES):
            del self.nodes[kind]
        self._references = references
        self._columns: Mapping[int, Float64] = {}
        self._finite = True

    def value(self, text: str, tree: ast.AST, columns: Mapping[int, Float64], finite: bool) -> Array:
        """What the tree comes to with these columns; raises _PartNotFinite if asked to."""
        self._columns, self._finite = columns, finite
        return np.asarray(self.eval(text, tree))

    def _eval(self, node: ast.AST) -> Array:
        value = np.asarray(super()._eval(node))
        if self._finite and value.dtype != np.bool_ and not np.isfinite(value).all():
            rows = np.flatnonzero(~np.isfinite(value))
            row = int(rows[0]) if value.ndim else 0
            raise _PartNotFinite(ast.unparse(node), row, float(value.flat[row]))
        return value

    def _column(self, node: ast.AST) -> Array:
        if isinstance(node, ast.Name) and node.id in _CONSTANTS:
            return np.asarray(_CONSTANTS[node.id])
        return self._columns[self._references[node]]

    _eval_name = _eval_attribute = _eval_subscript = _column

    def _eval_constant(self, node: ast.Constant) -> Array:
        assert isinstance(node.value, int | float)
        try:
            return np.asarray(node.value, dtype=np.float64)
        except OverflowError:
            raise InvalidExpression(f"{str(node.value)[:20]}... does not fit a float64") from None

    def _eval_unaryop(self, node: ast.UnaryOp) -> Array:
        return _OPERATORS[type(node.op)](_number(self._eval(node.operand)))

    def _eval_binop(self, node: ast.BinOp) -> Array:
        return _OPERATORS[type(node.op)](_number(self._eval(node.left)), _number(self._eval(node.right)))

    def _eval_boolop(self, node: ast.BoolOp) -> Array:
        join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
        return np.asarray(reduce(join, [self._eval(value) for value in node.values]))

    def _eval_compare(self, node: ast.Compare) -> Array:
        values = [_number(self._eval(value)) for value in (node.left, *node.comparators)]
        pairs = zip(node.ops, values, values[1:], strict=False)
        return np.asarray(reduce(np.logical_and, [_COMPARISONS[type(op)](a, b) for op, a, b in pairs]))


def _on_numbers(function: Callable[..., Array]) -> Callable[..., Array]:
    return lambda *values: function(*map(_number, values))


def _number(value: Array) -> Array:
    """A condition counts as 1 or 0; numpy's own sum of two conditions would be a condition."""
    return value.astype(np.float64) if value.dtype == np.bool_ else value


def present_columns(names: Sequence[str], feature: str) -> list[int]:
    """Where the numbers of `feature` at the present tick stand among the names of an observation.

    Of a feature with a history the names end in @t-2, @t-1, @t.
    """
    return [i for i, name in enumerate(names) if name.split(".", 1)[0] == feature and not _PAST.search(name)]


def _references(names: Sequence[str]) -> dict[str, int]:
    """What each number of the observation may be called in an expression -> its place in the observation."""
    references: dict[str, int] = {}
    for feature in dict.fromkeys(name.split(".", 1)[0] for name in names):
        indices = [i for i, name in enumerate(names) if name.split(".", 1)[0] == feature]
        references.update({f"{feature}[{place}]": index for place, index in enumerate(indices)})
        present = present_columns(names, feature)
        if len(present) == 1:
            references[feature] = present[0]
        parts = {index: names[index].removesuffix("@t").split(".")[1:] for index in present}
        for index, path in parts.items():
            for start in range(len(path)):
                tail = path[start:]
                if sum(other[-len(tail) :] == tail for other in parts.values()) == 1:
                    references[".".join([feature, *tail])] = index
    return references
