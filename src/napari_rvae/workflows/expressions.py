"""Which atoms: an expression on the columns of their table, that can compare and calculate but not run code."""

from __future__ import annotations

import ast
import keyword
import operator
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_rvae.errors import InputDataError

_LONGEST = 2000
_PREFIX = "column_"  # stands before column names that Python keeps for itself, such as class
_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def atoms_where(table: pd.DataFrame, expression: str | None) -> NDArray[np.bool_]:
    """Tell for which rows an expression holds.

    Parameters
    ----------
    table : DataFrame
        Atoms or latent table.
    expression : str or None
        Column names, numbers, texts, ``+ - * / %``, comparisons, ``in [...]``, ``and``, ``or``, ``not`` and
        parentheses: ``sublattice == 0 and flag != 'edge'``. None or empty: every row.

    Returns
    -------
    ndarray, bool, (n,)
        True where it holds; a missing number satisfies no comparison but ``!=``.

    Raises
    ------
    InputDataError
        If it cannot be understood, names an unknown column, or is no condition.
    """
    if expression is None or not expression.strip():
        return np.ones(len(table), bool)
    if len(expression) > _LONGEST:
        raise InputDataError(f"the expression is longer than {_LONGEST} characters")
    shielded = re.sub(
        rf"\b({'|'.join(keyword.kwlist)})\b", lambda found: _shielded(found.group(), table), expression.strip()
    )
    try:
        tree = ast.parse(shielded, mode="eval")
        value = _Evaluation(table, expression).value(tree.body)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError, ZeroDivisionError) as error:
        if isinstance(error, InputDataError):
            raise
        raise InputDataError(f"{expression!r} cannot be understood; write for example 'sublattice == 0'") from error
    if not (isinstance(value, np.ndarray) and value.dtype == bool):
        raise InputDataError(f"{expression!r} is no condition on the atoms; compare a column with a value")
    return value


def _shielded(word: str, table: pd.DataFrame) -> str:
    return _PREFIX + word if word in table else word


class _Evaluation:
    """Walks an expression; whatever is not allowed is refused by name."""

    def __init__(self, table: pd.DataFrame, expression: str) -> None:
        self.table, self.expression = table, expression

    def value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float, str, bool)):
            return node.value
        if isinstance(node, ast.Name):
            return self.column(node.id)
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            return [self.value(item) for item in node.elts]
        if isinstance(node, ast.BoolOp):
            combined = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            return combined.reduce([self.condition(part) for part in node.values])
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.BitAnd, ast.BitOr)):
            combined = np.logical_and if isinstance(node.op, ast.BitAnd) else np.logical_or
            return combined(self.condition(node.left), self.condition(node.right))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.Invert)):
            return ~self.condition(node.operand)
        if isinstance(node, ast.UnaryOp):
            return _OPERATORS[type(node.op)](self.number(node.operand))
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            with np.errstate(all="ignore"):
                return _OPERATORS[type(node.op)](self.number(node.left), self.number(node.right))
        if isinstance(node, ast.Compare):
            return self.comparison(node)
        raise InputDataError(
            f"{self.expression!r} may only compare and calculate; leave out {ast.unparse(node).replace(_PREFIX, '')!r}"
        )

    def comparison(self, node: ast.Compare) -> NDArray[np.bool_]:
        values = [self.value(part) for part in (node.left, *node.comparators)]
        holds = np.ones(len(self.table), bool)
        for left, compare, right in zip(values, node.ops, values[1:], strict=False):
            if isinstance(compare, (ast.In, ast.NotIn)) and isinstance(right, list):
                holds &= np.isin(np.asarray(left), np.asarray(right)) ^ isinstance(compare, ast.NotIn)
            elif type(compare) in _OPERATORS:
                holds &= np.asarray(_OPERATORS[type(compare)](left, right), bool)
            else:
                raise InputDataError(f"{self.expression!r} holds a comparison that is not known here")
        return holds

    def column(self, name: str) -> NDArray[Any]:
        name = name.removeprefix(_PREFIX)
        if name not in self.table:
            raise InputDataError(f"there is no column {name!r}; there are {', '.join(map(str, self.table.columns))}")
        values = self.table[name]
        return values.to_numpy() if pd.api.types.is_numeric_dtype(values) else values.astype(str).to_numpy(object)

    def number(self, node: ast.expr) -> Any:
        value = self.value(node)
        if isinstance(value, (str, list)) or (isinstance(value, np.ndarray) and value.dtype.kind not in "iuf"):
            raise InputDataError(f"{self.expression!r} calculates with what is no number")
        return value if isinstance(value, np.ndarray) else float(value)

    def condition(self, node: ast.expr) -> NDArray[np.bool_]:
        value = self.value(node)
        if not (isinstance(value, np.ndarray) and value.dtype == bool):
            raise InputDataError(f"{self.expression!r} joins what is no condition; compare a column with a value")
        return value
