"""Writes zkside/client/sync.pyi: the types of the blocking faces, from the source of the asynchronous classes."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from zkside.client.faces import SOURCES

_HEAD = '''"""Generated from the asynchronous classes by docs/generate.py: `make fmt` writes it anew."""
'''
_RENAMED = {
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
    "__iter__": "__iter__",
    "__len__": "__len__",
    "__contains__": "__contains__",
    "__getitem__": "__getitem__",
}
_BLOCKING = {"AsyncIterator": ("collections.abc", "Iterator"), "asyncio.Future": ("concurrent.futures", "Future")}
"""What stands for a type of asyncio: its module, its name."""

_Function = ast.FunctionDef | ast.AsyncFunctionDef


class _Stub:
    """What has been found out while the classes were read."""

    def __init__(self) -> None:
        self.imports: set[tuple[str, str]] = set()
        self.names = {source.__name__ for source in SOURCES}
        self.variables: set[str] = set()

    def of_class(self, source: type) -> str:
        bases = [base.__name__ for base in source.__mro__[1:] if base in SOURCES][:1]
        parameters: tuple[object, ...] = getattr(source, "__parameters__", ())
        for parameter in map(str, parameters):
            self.variables.add(parameter.lstrip("~"))
        if parameters:
            self.imports |= {("typing", "Generic"), ("typing", "TypeVar")}
            bases.append(f"Generic[{', '.join(str(each).lstrip('~') for each in parameters)}]")
        lines = [
            line
            for kind in source.__mro__[:-1]
            if not (kind is not source and kind in SOURCES) and kind.__module__.startswith("zkside.client.")
            for line in self._members(kind, is_client=source.__name__ == "Client" and kind is source)
        ]
        head = f"class {source.__name__}({', '.join(bases)}):" if bases else f"class {source.__name__}:"
        return "\n".join([head, *(f"    {line}" for line in lines or ["..."])])

    def _members(self, kind: type, *, is_client: bool) -> Iterator[str]:
        module = inspect.getmodule(kind)
        assert module is not None
        tree = ast.parse(inspect.getsource(module))
        definition = next(each for each in tree.body if isinstance(each, ast.ClassDef) and each.name == kind.__name__)
        scope = _imports(tree, module)
        for member in definition.body:
            if not isinstance(member, _Function):
                continue
            if member.name == "__init__":
                yield from self._attributes(member, scope)
                if is_client:
                    yield self._function(member, member.name, scope)
            elif member.name in _RENAMED or not member.name.startswith("_"):
                for decorator in member.decorator_list:
                    yield f"@{ast.unparse(decorator)}"
                yield self._function(member, _RENAMED.get(member.name, member.name), scope)

    def _attributes(self, maker: _Function, scope: dict[str, str]) -> Iterator[str]:
        for line in maker.body:
            target = line.target if isinstance(line, ast.AnnAssign) else None
            if isinstance(line, ast.AnnAssign) and isinstance(target, ast.Attribute) and target.attr[0] != "_":
                yield f"{target.attr}: {self._type(line.annotation, scope)}"

    def _function(self, function: _Function, name: str, scope: dict[str, str]) -> str:
        arguments = function.args
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg):
            if argument is not None and argument.annotation is not None:
                argument.annotation = ast.parse(self._type(argument.annotation, scope), mode="eval").body
        arguments.defaults = [ast.Constant(...) for _ in arguments.defaults]
        arguments.kw_defaults = [None if default is None else ast.Constant(...) for default in arguments.kw_defaults]
        returns = "None" if function.returns is None else self._type(function.returns, scope)
        return f"def {name}({ast.unparse(arguments)}) -> {returns}: ..."

    def _type(self, annotation: ast.expr, scope: dict[str, str]) -> str:
        text = ast.unparse(annotation)
        for awaited, (module, blocking) in _BLOCKING.items():
            if awaited in text:
                text = text.replace(awaited, blocking)
                self.imports.add((module, blocking))
        for node in ast.walk(ast.parse(text, mode="eval")):
            if isinstance(node, ast.Name) and node.id in scope and node.id not in self.names | self.variables:
                self.imports.add((scope[node.id], node.id))
        return text


def _imports(tree: ast.Module, module: ModuleType) -> dict[str, str]:
    """Where each name of a module comes from."""
    scope = {
        target.id: module.__name__
        for line in tree.body
        if isinstance(line, ast.Assign | ast.AnnAssign)
        for target in (line.targets if isinstance(line, ast.Assign) else [line.target])
        if isinstance(target, ast.Name)
    }
    scope |= {line.name: module.__name__ for line in tree.body if isinstance(line, ast.ClassDef)}
    for line in ast.walk(tree):
        if isinstance(line, ast.ImportFrom) and line.module is not None:
            scope |= {alias.name: line.module for alias in line.names}
    return scope


def sync_face() -> str:
    """The whole file."""
    stub = _Stub()
    classes = [stub.of_class(source) for source in SOURCES]
    imports = [f"from {module} import {name}" for module, name in sorted(stub.imports)]
    variables = [f'{name} = TypeVar("{name}")' for name in sorted(stub.variables)]
    text = "\n".join([_HEAD, *imports, "", *variables, "", *classes]) + "\n"
    for command in (["check", "--fix-only", "-q", "--select", "I,UP"], ["format", "-q"]):
        text = _ruff(text, *command)
    return text


def _ruff(text: str, *arguments: str) -> str:
    ruff = Path(sys.executable).with_name("ruff")
    command = [str(ruff), *arguments, "--stdin-filename", "zkside/client/sync.pyi", "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
