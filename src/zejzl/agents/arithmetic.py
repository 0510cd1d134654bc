"""Arithmetic that a stranger may write: numbers and operators, nothing that can be called.

The text is parsed, not executed, and only the forms below have a meaning. Every intermediate
value is bounded, so that no short text becomes a long computation.
"""

import ast
import math
import operator
import re
from collections.abc import Callable

LONGEST = 1_000  # characters of an expression
DEEPEST = 50  # levels of it
MOST_BITS = 4_096  # of a whole number, at any step
SIGNS = "+ - * / // % ** ( )"

Number = int | float

_OTHER = re.compile(r"[^0-9eE_.+\-*/%^()\s]")  # words are never even parsed

_TWO: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_ONE: dict[type[ast.unaryop], Callable[[Number], Number]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}


def evaluate(expression: str) -> Number:
    """Return the value of an expression of numbers, `+ - * / // % **` and parentheses.

    Raises:
        ValueError: If it is none, its value is no finite number, or it is too large a
            computation: more than 1,000 characters, 50 levels or 4,096 bits.
    """
    if len(expression) > LONGEST:
        raise ValueError(f"the expression has {len(expression)} characters, {LONGEST} may be")
    if _OTHER.search(expression):
        raise ValueError(f"{expression[:80]!r} is no arithmetic: write numbers and {SIGNS}")
    try:
        tree = ast.parse(expression.strip().replace("^", "**"), mode="eval")
        value = _value(tree.body, 0)
    except (SyntaxError, RecursionError, MemoryError) as problem:
        raise ValueError(f"no arithmetic: {problem}") from None
    except (ZeroDivisionError, OverflowError) as problem:
        raise ValueError(f"{expression!r} has no value: {problem}") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{expression!r} has no finite value")
    return value


def _value(node: ast.expr, depth: int) -> Number:
    if depth > DEEPEST:
        raise ValueError(f"the expression is nested deeper than {DEEPEST} levels")
    match node:
        case ast.Constant(value=int() | float() as value):
            return _bounded(value)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _ONE:
            return _ONE[type(op)](_value(operand, depth + 1))
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_value(left, depth + 1), _value(right, depth + 1))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _TWO:
            return _bounded(_TWO[type(op)](_value(left, depth + 1), _value(right, depth + 1)))
    raise ValueError(
        f"{ast.unparse(node)[:80]!r} is no arithmetic: numbers and + - * / // % ** ( )"
    )


def _power(base: Number, exponent: Number) -> Number:
    # The size of a whole power is known before it is computed, which could take for ever.
    if isinstance(base, int) and isinstance(exponent, int) and exponent > 0:
        if abs(base) > 1 and base.bit_length() * exponent > 2 * MOST_BITS:
            raise ValueError(f"{base} ** {exponent} has more than {MOST_BITS} bits")
        return _bounded(base**exponent)
    value: object = base**exponent
    if not isinstance(value, int | float):
        raise ValueError(f"{base} ** {exponent} is no real number")
    return value


def _bounded(value: Number) -> Number:
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        raise ValueError(f"a whole number of more than {MOST_BITS} bits")
    return value
