"""An expression over features gives the numbers that Python would give, and does nothing else."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rql_core.contract.expression import FUNCTIONS, MAX_CHARACTERS, Expression, NotFiniteError, present_columns
from rql_core.errors import ContractError

NAMES = ("tip.pose.position.x", "tip.pose.position.y", "arm.position.a", "arm.velocity.a", "grip.data", "many.data[3]")
ROWS = np.random.default_rng(0).uniform(0.1, 2.0, (50, len(NAMES))).astype(np.float32)
X, Y, A, V, G, M = (ROWS[:, i].astype(np.float64) for i in range(len(NAMES)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-1 + (hypot(tip.x - 0.4, tip.y - 0.22) < 0.4)", -1.0 + (np.hypot(X - 0.4, Y - 0.22) < 0.4)),
        ("(tip.x > 1) + (tip.y > 1)", (X > 1) * 1.0 + (Y > 1) * 1.0),
        ("-(tip.x > 1)", -1.0 * (X > 1)),
        ("tip.pose.position.x * tip[1] - tip.position.y", X * Y - Y),
        ("arm.position.a / arm.velocity.a", A / V),
        ("grip ** 2 % 1", G**2 % 1),
        ("many.data[3] + many[0] + many", M + M + M),
        ("2 * pi", np.full(50, 2 * math.pi)),
        ("max(tip.x, tip.y, 1) - min(tip.x, tip.y)", np.maximum(np.maximum(X, Y), 1) - np.minimum(X, Y)),
        ("where(tip.x > 1, -tip.x, clip(tip.y, 0.5, 1))", np.where(X > 1, -X, np.clip(Y, 0.5, 1))),
        ("norm(tip.x, tip.y, grip)", np.sqrt(X * X + Y * Y + G * G)),
        ("atan2(tip.y, tip.x) + tanh(grip) + exp(-grip)", np.arctan2(Y, X) + np.tanh(G) + np.exp(-G)),
    ],
)
def test_a_formula_has_the_value_it_says(text: str, expected: np.ndarray) -> None:
    expression = Expression(text, NAMES)
    assert not expression.is_condition
    np.testing.assert_allclose(expression(ROWS), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.5 < tip.x < 1.5", (X > 0.5) & (X < 1.5)),
        ("tip.x > 1 and not tip.y > 1", (X > 1) & ~(Y > 1)),
        ("tip.x > 1.9 or tip.y > 1.9 or grip != grip", (X > 1.9) | (Y > 1.9)),
        ("not (tip.x > 1) + (tip.y > 1)", ~((X > 1) | (Y > 1))),
    ],
)
def test_a_condition_holds_step_by_step(text: str, expected: np.ndarray) -> None:
    expression = Expression(text, NAMES)
    assert expression.is_condition
    assert 0 < expected.sum() < 50
    np.testing.assert_array_equal(expression(ROWS), expected)


def test_one_step_alone_has_the_value_that_it_has_among_many() -> None:
    columns = " + ".join(f"{name}(tip.x)" for name, (_, least, _, _) in FUNCTIONS.items() if least == 1)
    expression = Expression(f"{columns} + hypot(tip.x, tip.y) + tip.x ** 1.5 + atan2(tip.x, grip)", NAMES)
    singly = np.concatenate([expression(ROWS[i : i + 1]) for i in range(len(ROWS))])
    np.testing.assert_array_equal(singly, expression(ROWS))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("__import__('os').system('true')", "is no function here"),
        ("().__class__.__bases__", "there is no"),
        ("tip.x.__class__", "there is no 'tip.x.__class__'"),
        ("tip.x.real", r"there is no 'tip\.x\.real'"),
        ("tip.__init__", "there is no"),
        ("eval('1')", "'eval': is no function here; there are abs"),
        ("open('/etc/passwd')", "is no function here"),
        ("(lambda: 1)()", "is no function here"),
        ("abs.__call__(1)", "is no function here"),
        ("[x for x in (1, 2)]", "ListComp is not accepted"),
        ("[1, 2]", "List is not accepted"),
        ("1, 2", "Tuple is not accepted"),
        ("{'a': 1}", "Dict is not accepted"),
        ("'a' * 3", "str is not accepted"),
        ("f'{tip.x}'", "JoinedStr is not accepted"),
        ("True", "bool is not accepted"),
        ("1j", "complex is not accepted"),
        ("1 if tip.x > 0 else 2", "IfExp is not accepted"),
        ("(y := 3)", "NamedExpr is not accepted"),
        ("tip.x = 3", "Assign is not accepted"),
        ("import os", "Import is not accepted"),
        ("tip.x < 1; tip.y", "no single formula"),
        ("tip.x <", "no single formula"),
        ("", "no single formula"),
        ("tip.x // 2", "operator FloorDiv is not accepted"),
        ("tip.x @ 2", "operator MatMult is not accepted"),
        ("1 << 9", "operator LShift is not accepted"),
        ("~1", "operator Invert is not accepted"),
        ("tip.x in 3", "operator In is not accepted"),
        ("tip.x is 3", "operator Is is not accepted|no single formula"),
        ("min(1)", "has 1 values, expected at least 2"),
        ("sqrt(1, 2)", "has 2 values, expected 1"),
        ("abs(x=1)", "by their place only"),
        ("max(*tip)", "by their place only"),
        ("tip.z", r"there is no 'tip\.z'.* there is tip\.y, tip\.x"),
        ("tip", "there is no 'tip', or it is not the only one"),
        ("arm.a", r"there is no 'arm\.a', or it is not the only one"),
        ("tip[2]", r"there is no 'tip\[2\]'"),
        ("tip[0:1]", r"there is no 'tip\[0:1\]'"),
        ("9**9**9", "is inf"),
        ("1 / 0", "is inf"),
        ("9" * 400, "does not fit a float64"),
        ("-" * 500 + "1", "expected at most 400"),
        ("1+" * 999 + "1", "expected at most 400"),
        ("1" + " " * MAX_CHARACTERS, "expected at most 2000"),
        ("(" * 900 + "1" + ")" * 900, "no single formula|parts"),
    ],
)
def test_what_is_no_formula_is_refused_when_it_is_read(text: str, words: str) -> None:
    with pytest.raises(ContractError, match=words) as caught:
        Expression(text, NAMES)
    assert "\n" not in str(caught.value)


def test_a_name_means_the_present_tick_of_a_feature_with_a_history() -> None:
    names = ("tip.x@t-1", "tip.y@t-1", "tip.x@t", "tip.y@t", "grip.data@t-1", "grip.data@t")
    rows = np.arange(6, dtype=np.float32)[None]
    for text, value in [("tip.x", 2), ("tip.y", 3), ("tip[0]", 0), ("tip[3]", 3), ("grip", 5), ("grip[0]", 4)]:
        assert Expression(text, names)(rows).tolist() == [value]
    assert present_columns(names, "tip") == [2, 3]
    with pytest.raises(ContractError, match="operator MatMult is not accepted"):
        Expression("tip.x@t", names)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("sqrt(tip.x) + 1", r"because sqrt\(tip\.x\) is"),
        ("sqrt(tip.x) < 0.5", r"because sqrt\(tip\.x\) is"),
        ("1 / (tip.x + 1)", r"is inf \(where"),
        ("exp(-800 * tip.x) * 0", r"because exp\(-800 \* tip\.x\) is"),
        ("where(tip.x > 0, log(tip.x), 0)", r"because log\(tip\.x\) is"),
    ],
)
def test_a_part_that_is_not_finite_is_an_error_with_its_row_and_never_a_quiet_false(text: str, part: str) -> None:
    rows = ROWS.copy()
    rows[[17, 30], 0] = -1.0
    with pytest.raises(NotFiniteError, match=part) as caught:
        Expression(text, NAMES)(rows)
    assert caught.value.row == 17
    assert "where tip.pose.position.x = -1)" in str(caught.value)


_LEAVES = st.sampled_from(["tip.x", "tip[1]", "grip", "0.5", "2", "pi"])
_TEXTS = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*"]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(inner, st.sampled_from(["<", ">="]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        inner.map(lambda t: f"-{t}"),
        st.tuples(inner, inner).map(lambda t: f"hypot({t[0]}, {t[1]})"),
    ),
    max_leaves=12,
)


@given(_TEXTS)
@settings(max_examples=60, deadline=None)
def test_any_formula_agrees_with_plain_python_number_by_number(text: str) -> None:
    """The one place where Python evaluates the text itself: it was made from the grammar above."""
    values = Expression(text, NAMES)(ROWS[:5])
    for row, value in zip(ROWS[:5].astype(float), values, strict=True):
        plain = text.replace("tip.x", repr(row[0])).replace("tip[1]", repr(row[1])).replace("grip", repr(row[4]))
        plain = plain.replace("np.float64", "")
        expected = eval(plain, {"__builtins__": {}}, {"pi": math.pi, "hypot": math.hypot})  # noqa: S307
        assert float(value) == pytest.approx(float(expected), rel=1e-9, abs=1e-9)


@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_text_at_all_is_a_formula_or_a_contract_error(text: str) -> None:
    try:
        expression = Expression(text, NAMES)
    except ContractError:
        return
    code = re.sub("#[^\\r\\n]*", "", text).strip()  # without comments
    assert expression.columns or set(code) <= set("0123456789+-*/%.eE_() pi<>=!~xXoObBjJabcdfABCDF\t\r\n\x0c")
