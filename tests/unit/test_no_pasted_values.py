"""No statement has a value pasted into its text, wherever in the project it is written.

What may stand in a statement's text is what the project itself says: literals, constants,
choices between them. Everything else is a parameter, or put in by psycopg's `sql.Identifier`
and `sql.Literal` (in SQLite, which stores can be, a name goes into quotes by `quoted`). The
source is read for that, so a new statement is looked at too: an expression in it is followed
through variables, to a function's callers, and into what a function returns.
"""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

SOURCES = sorted(
    path
    for folder in ("src/harca", "alembic", "data_migrations")
    for path in (ROOT / folder).rglob("*.py")
)

# Their first argument is a statement.
METHODS = {"execute", "executemany", "executescript", "exec_driver_sql", "scalar", "scalars"}
# Parts of statements, which keep values apart; and what can be no SQL.
SAFE_CALLS = {"Identifier", "Literal", "Placeholder", "quoted", "int", "len", "range"}
COMPOSED = ("sql.Composed", "sql.Composable", "sql.SQL", "sql.Identifier", "sql.Literal")
# They give back what they are given, or some of it.
PASSING = {"sorted", "list", "tuple", "set", "reversed", "enumerate", "zip", "iter", "next", "dict"}
TEXT_METHODS = {"strip", "rstrip", "lstrip", "removeprefix", "removesuffix", "replace", "split",
                "items", "keys", "values", "get", "upper", "lower", "splitlines"}  # fmt: skip

# What cannot be followed: a file, with an expression or a function in it, and why it is safe.
TRUSTED = {
    ("revisions.py", "_aside"): "a schema's name, of letters that need no quotes, or a digest",
    ("legacy_swap.py", "definition"): "written by pg_get_functiondef",
    ("legacy_search.py", "self.arguments"): "written by pg_get_function_arguments",
    ("indexes.py", "row[0]"): "written by pg_get_indexdef",
    ("search.py", "_statement"): "made by nearest.statement, and kept",
    ("grants.py", "privilege"): "a right, as aclexplode calls it",
    ("undump.py", "table.encode()"): "a backup is restored by running what is in it",
    ("undump.py", "statement.encode()"): "likewise",
}

Place = tuple["Module", "ast.FunctionDef | None"]


class Module:
    """A source file, with which function each of its nodes is in."""

    def __init__(self, path: Path, source: str | None = None) -> None:
        self.path = path
        self.tree = ast.parse(source if source is not None else path.read_text("utf-8"))
        self.around: dict[ast.AST, ast.FunctionDef | None] = {}
        self._enter(self.tree, None)
        self.imported = {
            alias.asname or alias.name: (node.module, alias.name)
            for node in self.around
            if isinstance(node, ast.ImportFrom) and node.module
            for alias in node.names
        }

    def _enter(self, node: ast.AST, function: ast.FunctionDef | None) -> None:
        for child in ast.iter_child_nodes(node):
            self.around[child] = function
            self._enter(child, child if isinstance(child, ast.FunctionDef) else function)


def called(node: ast.Call) -> str:
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def dotted(node: ast.expr | None) -> str:
    return ast.unparse(node).strip("'\"") if node is not None else ""


def statements(module: Module) -> Iterator[ast.expr]:
    """Yield what is given as a statement, or as a part of one."""
    for call in module.around:
        if not isinstance(call, ast.Call) or not call.args:
            continue
        name = called(call)
        is_statement = isinstance(call.func, ast.Attribute) and (
            name in METHODS
            or (name == "copy" and dotted(call.func.value).endswith("cursor"))
            or dotted(call.func) in ("sql.SQL", "sa.text")
        )
        if is_statement or module.imported.get(dotted(call.func)) == ("sqlalchemy", "text"):
            yield call.args[0]


class Project:
    """All modules, in which an expression can be followed."""

    def __init__(self, modules: list[Module]) -> None:
        self.modules = modules
        self._known: dict[ast.AST, bool] = {}
        self._loops: dict[tuple[Place, str], bool] = {}
        self._calls: dict[str, list[tuple[ast.Call, Module]]] = defaultdict(list)
        self._functions: dict[str, list[tuple[ast.FunctionDef, Module]]] = defaultdict(list)
        self._set: dict[str, list[tuple[ast.expr, Place]]] = defaultdict(list)
        self._declared: dict[str, list[ast.expr]] = defaultdict(list)
        self._classes: set[str] = set()
        for module in modules:
            for node, function in module.around.items():
                match node:
                    case ast.Call():
                        self._calls[called(node)].append((node, module))
                    case ast.FunctionDef():
                        self._functions[node.name].append((node, module))
                    case ast.ClassDef():
                        self._classes.add(node.name)
                    case ast.Assign(targets=[ast.Attribute(attr=name)], value=value):
                        self._set[name].append((value, (module, function)))
                    case ast.AnnAssign(target=ast.Name(id=name), annotation=kind) if not function:
                        self._declared[name].append(kind)

    def is_ours(self, node: ast.expr | None, place: Place) -> bool:
        """Say whether *node* can be nothing but what the project says."""
        if node is None:
            return True
        if node not in self._known:
            self._known[node] = True  # what leads back to itself adds nothing
            self._known[node] = self._is_ours(node, place)
        return self._known[node]

    def _all(self, nodes: Iterable[ast.expr | None], place: Place) -> bool:
        return all(self.is_ours(node, place) for node in nodes)

    def _is_ours(self, node: ast.expr, place: Place) -> bool:
        match node:
            case ast.Constant():
                return True
            case ast.JoinedStr(values=values) | ast.BoolOp(values=values):
                return self._all(values, place)
            case ast.Tuple(elts=values) | ast.List(elts=values) | ast.Set(elts=values):
                return self._all(values, place)
            case ast.Dict(values=values):
                return self._all([key for key in node.keys if key] + values, place)
            case ast.BinOp(left=left, right=right):
                return self._all((left, right), place)
            case ast.IfExp(body=body, orelse=orelse):
                return self._all((body, orelse), place)
            case (
                ast.FormattedValue(value=value)
                | ast.Starred(value=value)
                | ast.Subscript(value=value)
            ):
                return self.is_ours(value, place)
            case ast.GeneratorExp(elt=elt) | ast.ListComp(elt=elt) | ast.SetComp(elt=elt):
                return self._each(elt, node.generators, place)
            case ast.Name():
                return self._name(node.id, place)
            case ast.Attribute():
                return self._attribute(node, place)
            case ast.Call():
                return self._call(node, place)
        return False

    def _each(self, elt: ast.expr, loops: list[ast.comprehension], place: Place) -> bool:
        """Follow the element of a comprehension, whose names are its own."""
        before = self._loops
        for loop in loops:
            ours = self.is_ours(loop.iter, place)
            for node in ast.walk(loop.target):
                if isinstance(node, ast.Name):
                    self._loops = {**self._loops, (place, node.id): ours}
        found = self.is_ours(elt, place)
        self._loops = before
        return found

    def _name(self, name: str, place: Place) -> bool:
        if (place, name) in self._loops:
            return self._loops[place, name]
        module, function = place
        while function is not None:
            parameters = [
                *function.args.posonlyargs,
                *function.args.args,
                *function.args.kwonlyargs,
            ]
            found = list(bindings(name, function)) or list(looped(name, function))
            for parameter in parameters:
                if parameter.arg == name and not found:
                    return self._parameter(parameter, function, module)
            if found:
                return self._all(found, (module, function))
            function = module.around.get(function)
        if found := list(bindings(name, module.tree, outside=module.around)):
            return self._all(found, (module, None))
        return self._imported(name, module)

    def _imported(self, name: str, module: Module) -> bool:
        return name in module.imported and self._constant(*module.imported[name])

    def _constant(self, module: str, name: str) -> bool:
        end = f"{module.replace('.', '/')}.py"
        for other in self.modules:
            if str(other.path).endswith(end):
                return self._name(name, (other, None))
        return False

    def _parameter(self, parameter: ast.arg, function: ast.FunctionDef, module: Module) -> bool:
        if is_composed(parameter.annotation):
            return True
        arguments = function.args
        names = [one.arg for one in [*arguments.posonlyargs, *arguments.args]]
        is_method = names[:1] in (["self"], ["cls"])
        at = names.index(parameter.arg) - is_method if parameter.arg in names else None
        own_only = function.name in METHODS or function.name.startswith("_")
        given: list[tuple[ast.expr, Place]] = []
        for call, other in self._calls[function.name]:
            if own_only and other is not module:
                continue
            where = (other, other.around.get(call))
            by_name = [word.value for word in call.keywords if word.arg == parameter.arg]
            if by_name:
                given.append((by_name[0], where))
            elif at is not None and at < len(call.args):
                given.append((call.args[at], where))
        return bool(given) and all(self.is_ours(value, where) for value, where in given)

    def _attribute(self, node: ast.Attribute, place: Place) -> bool:
        if isinstance(node.value, ast.Name):
            name = node.value.id
            around, inner = place[0].imported.get(name, ("", ""))
            if around and self._constant(f"{around}.{inner}", node.attr):
                return True
            if name not in ("self", "cls") and self.is_ours(node.value, place):
                return True
        # A field or a property, of whatever class: what it is said to be, or is set to.
        found = [is_composed(kind) for kind in self._declared[node.attr]]
        found += [self._returns(*one) for one in self._functions[node.attr]]
        found += [self.is_ours(*one) for one in self._set[node.attr]]
        return bool(found) and all(found)

    def _call(self, node: ast.Call, place: Place) -> bool:
        name = called(node)
        if name in SAFE_CALLS or dotted(node.func) == "shutil.copy":
            return True
        if name == "map":
            return called_as(node.args[0]) in SAFE_CALLS
        if name in ("SQL", "text", "query", "composed"):
            return self.is_ours(node.args[0], place)
        if name in PASSING:
            return self._all(node.args, place)
        if isinstance(node.func, ast.Attribute):
            on = node.func.value
            if name == "format":
                is_part = isinstance(on, ast.Call) and called(on) in ("SQL", "query")
                given = [] if is_part else [*node.args, *(word.value for word in node.keywords)]
                return self.is_ours(on, place) and self._all(given, place)
            if name == "join":
                return self._all((on, *node.args), place)
            if name in ("as_string", "as_bytes"):
                return self.is_ours(on, place)
            if name in TEXT_METHODS and self._all((on, *node.args), place):
                return True
        if name in self._classes:
            return self._all([*node.args, *(word.value for word in node.keywords)], place)
        made = [one for one in self._functions[name] if name[:1] != "_" or one[1] is place[0]]
        return bool(made) and all(self._returns(*one) for one in made)

    def _returns(self, function: ast.FunctionDef, module: Module) -> bool:
        if is_composed(function.returns):
            return True
        if (module.path.name, function.name) in TRUSTED:
            return True
        values = [
            node.value
            for node in ast.walk(function)
            if isinstance(node, ast.Return | ast.Yield) and module.around.get(node) is function
        ]
        return bool(values) and self._all(values, (module, function))


def called_as(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else dotted(node)


def is_composed(annotation: ast.expr | None) -> bool:
    return any(kind in dotted(annotation) for kind in COMPOSED)


def bindings(
    name: str, inside: ast.AST, *, outside: dict[ast.AST, ast.FunctionDef | None] | None = None
) -> Iterator[ast.expr]:
    """Yield what *name* is bound to in a function; or, given *outside*, in the module itself."""
    for node in ast.walk(inside):
        if outside is not None and outside.get(node) is not None:
            continue
        match node:
            case ast.Assign(targets=targets, value=value) if any(
                binds(target, name) for target in targets
            ):
                yield value
            case ast.AnnAssign(target=ast.Name(id=found), value=ast.expr() as value) if (
                found == name
            ):
                yield value
            case ast.AugAssign(target=ast.Name(id=found), value=value) if found == name:
                yield value
            case ast.NamedExpr(target=ast.Name(id=found), value=value) if found == name:
                yield value
            case ast.For(target=target, iter=value) if binds(target, name):
                yield value


def looped(name: str, inside: ast.AST) -> Iterator[ast.expr]:
    """Yield what *name* is bound to by the comprehensions in a function."""
    for node in ast.walk(inside):
        if isinstance(node, ast.comprehension) and binds(node.target, name):
            yield node.iter


def binds(target: ast.expr, name: str) -> bool:
    return any(isinstance(node, ast.Name) and node.id == name for node in ast.walk(target))


PROJECT = Project([Module(path) for path in SOURCES])


@pytest.mark.parametrize(
    "module", PROJECT.modules, ids=lambda module: str(module.path.relative_to(ROOT))
)
def test_no_value_is_pasted_into_a_statement(module):
    pasted = [
        f"{module.path.name}:{node.lineno}: {ast.unparse(node)[:200]}"
        for node in statements(module)
        if not PROJECT.is_ours(node, (module, module.around.get(node)))
        and (module.path.name, ast.unparse(node)) not in TRUSTED
    ]
    assert not pasted, "\n".join(pasted)


def looked_at(source: str) -> list[bool]:
    module = Module(Path("example.py"), source)
    project = Project([module])
    return [project.is_ours(node, (module, module.around.get(node))) for node in statements(module)]


@pytest.mark.parametrize(
    "source",
    [
        "def f(c, v):\n c.execute(f'SELECT {v}')",
        "def f(c, v):\n c.execute('SELECT %s' % v)",
        "def f(c, v):\n c.execute('SELECT ' + v)",
        "def f(c, v):\n c.execute('SELECT {}'.format(v))",
        "def f(c, v):\n s = 'SELECT '\n s += v\n c.execute(s)",
        "def f(c, v):\n c.execute(' '.join(['SELECT', v]))",
        "def f(c):\n for v in input():\n  c.execute(f'SELECT {v}')",
        "def f(c, v):\n c.execute(sql.SQL(v).format(sql.Literal(1)))",
        "def f(c, v):\n c.execute(sql.SQL('x').format(v) + sql.SQL(v))",
        "def f(c, s):\n c.execute(s)\ndef g(c, v):\n f(c, f'SELECT {v}')",
        "def f(c, v):\n c.execute(g(v))\ndef g(v):\n return f'SELECT {v}'",
        "from sqlalchemy import text\ndef f(c, v):\n c.scalar(text(f'SELECT {v}'))",
        "def f(op, v):\n op.execute(f'SET x = {v!r}')",
        "def f(c, space):\n c.execute(f'SELECT {space.model}')",
        "def f(cursor, v):\n cursor.copy(f'COPY {v}')",
    ],
)
def test_a_pasted_value_is_found(source):
    assert False in looked_at(source)


@pytest.mark.parametrize(
    "source",
    [
        "def f(c, v):\n c.execute('SELECT %s', [v])",
        "T = 'a'\ndef f(c):\n c.execute(f'SELECT {T}')",
        "T = ('a', 'b')\ndef f(c):\n c.execute(f\"SELECT {', '.join(T)}\")",
        "def f(c):\n for t in ('a', 'b'):\n  c.execute(f'DELETE FROM {t}')",
        "def f(c, v):\n c.execute(sql.SQL('SELECT {}').format(sql.Literal(v)))",
        "def f(c, v: 'sql.Composable'):\n c.execute(v)",
        "def f(c, s):\n c.execute(s)\ndef g(c):\n f(c, 'SELECT 1')",
        "def f(c, v):\n c.execute('a' if v else 'b')",
        "def f(c, n):\n c.execute(f'SELECT {quoted(n)}')",
    ],
)
def test_what_the_project_says_itself_is_let_pass(source):
    assert all(looked_at(source))


def test_what_is_trusted_is_still_there():
    for name, what in TRUSTED:
        found = [module.path.read_text("utf-8") for module in PROJECT.modules]
        assert any(what in text for text in found), (name, what)
