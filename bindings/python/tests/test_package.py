"""The package itself: its documentation runs, its types are those of the module, and it needs nothing."""

import ast
import doctest
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

import ternary_lm
from ternary_lm import _native


def test_the_examples_run():
    result = doctest.testmod(ternary_lm)
    assert result.failed == 0 and result.attempted > 8


@pytest.mark.parametrize("page", ["docs/python.md", "bindings/python/README.md"])
def test_the_examples_of_the_documents_run(page, tmp_path, monkeypatch):
    """The blocks of Python of a page run one after the other, in the folder of the repository's models."""
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    code = "\n".join(block for block in blocks if not block.startswith("# not run"))
    done = subprocess.run(
        [sys.executable, "-c", code.replace("FOLDER", repr(str(tmp_path)))], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


def test_the_stubs_name_what_the_module_has():
    stubs = ast.parse((Path(ternary_lm.__file__).parent / "_native.pyi").read_text(encoding="utf-8"))
    public = lambda name: not name.startswith("_") or name in ("__len__", "__iter__", "__next__", "__getitem__", "__bool__")
    classes = {node.name: node for node in stubs.body if isinstance(node, ast.ClassDef) and public(node.name)}
    functions = {node.name for node in stubs.body if isinstance(node, ast.FunctionDef)}
    module = {name for name in vars(_native) if public(name)}
    assert module == set(classes) | functions
    for name, node in classes.items():
        stub = {item.name for item in node.body if isinstance(item, ast.FunctionDef) and public(item.name)}
        real = {attribute for attribute in vars(getattr(_native, name)) if public(attribute)}
        assert stub == real, name
    assert (Path(ternary_lm.__file__).parent / "py.typed").exists()


def test_arguments_are_those_of_the_stubs():
    import inspect

    stubs = ast.parse((Path(ternary_lm.__file__).parent / "_native.pyi").read_text(encoding="utf-8"))
    compared = 0
    for node in stubs.body:
        if not isinstance(node, ast.ClassDef) or not hasattr(_native, node.name):
            continue
        for item in node.body:
            if not isinstance(item, ast.FunctionDef) or item.name.startswith("__") or item.decorator_list:
                continue
            real = inspect.signature(getattr(getattr(_native, node.name), item.name)).parameters
            arguments = [a.arg for a in item.args.posonlyargs + item.args.args + item.args.kwonlyargs]
            arguments += [item.args.kwarg.arg] if item.args.kwarg else []
            assert list(real) == arguments, f"{node.name}.{item.name}"
            compared += 1
    assert compared > 30


def test_it_needs_nothing():
    requires = importlib.metadata.requires("ternary-lm") or []
    assert all("extra ==" in requirement for requirement in requires)
    # Without what the tests brought: neither numpy nor anything else is imported by the package.
    code = "import sys, ternary_lm; ternary_lm.Model().embed('a').tolist(); print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_versions_agree():
    assert importlib.metadata.version("ternary-lm") == ternary_lm.__version__
    manifest = (ROOT / "Cargo.toml").read_text(encoding="utf-8")
    assert f'version = "{ternary_lm.__version__}"' in manifest.split("[workspace.package]")[1]
