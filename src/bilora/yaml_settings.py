"""Load a YAML settings file as a pydantic model. Unknown keys are faults; all faults are reported together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from bilora.errors import ParamsError
from bilora.system_errors import path_error
from bilora.textfiles import NotText, decode_text, encoding_of

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_T = TypeVar("_T", bound=BaseModel)

MAX_VALUE_CHARS = 60
"""The number of characters of a value that a message repeats."""
YES_NO = {"yes": True, "on": True, "no": False, "off": False}
TYPES = {"int_type": "a whole number", "float_type": "a number", "bool_type": "true or false", "string_type": "text"}
"""What a field expects, by pydantic's error type."""
MESSAGES = {
    "missing": "it is missing",
    "extra_forbidden": "there is no such key",
    "model_type": "it must be a mapping",
    "model_attributes_type": "it must be a mapping",
    "dict_type": "it must be a mapping",
    "list_type": "it must be a list",
    "too_short": "it must not be empty",
    "value_error": "{error}",
    "union_tag_not_found": "`kind` is missing",
    "union_tag_invalid": "there is no kind {tag!r}; it is one of {expected_tags}",
}
"""The messages of other faults, by pydantic's error type; its context fills in the braces."""


class Ambiguous(str):
    """An unquoted word that YAML 1.1 and 1.2 read differently, such as `no`, `010` or `1:30`, as it is written."""

    __slots__ = ()


def _flag(value: object) -> object:
    return YES_NO.get(value.lower(), value) if isinstance(value, Ambiguous) else value


Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]
Count = Annotated[int, Field(ge=1)]
Flag = Annotated[bool, BeforeValidator(_flag)]
"""true or false; also unquoted yes, no, on and off."""


class Settings(BaseModel):
    """Base of all sections: immutable, strictly typed, without unknown keys or infinite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class _Loader(yaml.SafeLoader):
    """A loader for what YAML 1.1 and 1.2 agree on: ambiguous words stay text, and repeated keys are faults.

    PyYAML's own loader reads `1e-4` as text, `010` as 8, `1:30` as 90 and `no` as false, and ignores all but the last
    of equal keys.
    """

    repeated: list[str]

    def compose_mapping_node(self, anchor: dict[str, yaml.Node]) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        first: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                if key.value in first:
                    self.repeated.append(f"line {line}: {key.value!r} is already set in line {first[key.value]}")
                first.setdefault(key.value, line)
        return node


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int | Ambiguous:
    text = loader.construct_scalar(node)
    try:
        return int(text, 0 if text.lstrip("+-")[:2] in ("0x", "0o") else 10)
    except ValueError:  # more digits than Python reads, or `!!int` before a word
        return Ambiguous(text)


def _number(loader: _Loader, node: yaml.ScalarNode) -> float | Ambiguous:
    text = loader.construct_scalar(node)
    try:
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        return Ambiguous(text)


Constructor = Callable[["_Loader", yaml.ScalarNode], object]
"""Converts an unquoted word to its value."""

DIGITS = "[0-9]+(?:_[0-9]+)*"
SCALARS: tuple[tuple[str, str, Constructor | None, str], ...] = (
    ("null", r"~|null|Null|NULL|", lambda loader, node: None, "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", lambda loader, node: node.value.lower() == "true", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*(?:_[0-9]+)*|0x[0-9a-fA-F]+|0o[0-7]+)", _integer, "-+0123456789"),
    (
        "float",
        rf"[-+]?(?:{DIGITS}\.(?:{DIGITS})?(?:[eE][-+]?[0-9]+)?|\.{DIGITS}(?:[eE][-+]?[0-9]+)?|{DIGITS}[eE][-+]?[0-9]+"
        r"|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)",
        _number,
        "-+.0123456789",
    ),
    (
        "ambiguous",
        r"(?i:yes|no|on|off)|[-+]?0[0-9_]+|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?",
        lambda loader, node: Ambiguous(loader.construct_scalar(node)),
        "yYnNoO-+0123456789",
    ),
    ("merge", "<<", None, "<"),
)
"""Per kind of unquoted word: its tag, pattern, constructor and possible first characters."""
TAG = "tag:yaml.org,2002:"

_Loader.yaml_implicit_resolvers = {}
_Loader.yaml_constructors = {
    None: yaml.SafeLoader.construct_undefined,
    f"{TAG}str": yaml.SafeLoader.construct_yaml_str,
    f"{TAG}seq": yaml.SafeLoader.construct_yaml_seq,
    f"{TAG}map": yaml.SafeLoader.construct_yaml_map,
}
for _name, _pattern, _construct, _begins in SCALARS:
    _first = ["" if character == "\0" else character for character in _begins]
    _Loader.add_implicit_resolver(f"{TAG}{_name}", re.compile(f"^(?:{_pattern})$"), _first)
    if _construct is not None:
        _Loader.add_constructor(f"{TAG}{_name}", _construct)


def _key_path(location: tuple[int | str, ...], document: object) -> str:
    """Return the dotted path of a fault; pydantic's location also contains the discriminator `kind`, which is none."""
    keys: list[str] = []
    is_kind = False
    for part in location:
        is_kind = not is_kind and isinstance(document, dict) and document.get("kind") == part
        if is_kind:
            continue
        keys.append(str(part))
        if isinstance(document, dict):
            document = document.get(part)
        elif isinstance(document, list) and isinstance(part, int) and part < len(document):
            document = document[part]
        else:
            document = None
    return ".".join(keys) or "(top level)"


def _message(fault: ErrorDetails) -> str:
    """Return what is wrong with a value, and how to write it if only its spelling is wrong."""
    value = fault["input"]
    if (expected := TYPES.get(fault["type"])) is None:
        template = MESSAGES.get(fault["type"])
        return fault["msg"] if template is None else template.format(**fault.get("ctx", {}))
    if isinstance(value, list | dict):
        return f"a {'list' if isinstance(value, list) else 'mapping'} is not {expected}"
    if value is None:
        return f"there is no value; it must be {expected}"
    text = repr(value) if len(repr(value)) <= MAX_VALUE_CHARS else f"{repr(value)[:MAX_VALUE_CHARS]}…"
    if expected == "text":
        return f"{text} is not text; put it in quotes"
    if isinstance(value, Ambiguous) and value.startswith("0") and ":" not in value:
        return f"{value} is read differently by different versions of YAML; write {value.lstrip('0_') or '0'}"
    if isinstance(value, float) and value.is_integer():
        return f"{value} is not {expected}; write {value:.0f}"
    return f"{text} is not {expected}"


def parse_settings(path: Path, kind: type[_T], document: object, extra: list[str]) -> _T:
    """Validate a loaded document.

    Args:
        path: the file, for the message.
        kind: the type to return.
        document: what `load_yaml` returned.
        extra: faults to report beside those of the validation.

    Raises:
        ParamsError: with all faults and their keys.
    """
    if not isinstance(document, dict):
        raise ParamsError(path, ["(top level): must be a mapping"])
    faults = list(extra)
    try:
        parsed = kind.model_validate(document)
    except ValidationError as error:
        faults += [f"{_key_path(fault['loc'], document)}: {_message(fault)}" for fault in error.errors()]
        raise ParamsError(path, faults) from None
    if faults:
        raise ParamsError(path, faults)
    return parsed


def inline_yaml(entry: Mapping[str, object]) -> str:
    """Return a mapping as YAML on one line."""
    pairs = (f"{name}: {'null' if value is None else value}" for name, value in entry.items())
    return f"{{{', '.join(pairs)}}}"


def load_yaml(path: Path, *, absent: str = "") -> tuple[object, list[str]]:
    """Load a YAML file; return its content, and its repeated keys as faults.

    Args:
        absent: advice for the message if the file does not exist.

    Raises:
        ParamsError: it does not exist or is not YAML.
        BadData, Infrastructure: it cannot be read.
    """
    with _yaml_errors(path, absent):
        loader = _loader(_read(path))
        return loader.get_single_data(), loader.repeated


def compose_yaml(path: Path) -> tuple[str, yaml.Node | None]:
    """Return a YAML file's text without a byte order mark, and its nodes with their positions in that text.

    Raises:
        ParamsError: it does not exist, is not YAML, or repeats a key.
        BadData, Infrastructure: it cannot be read.
    """
    with _yaml_errors(path):
        text = _read(path)
        loader = _loader(text)
        node = loader.get_single_node()
    if loader.repeated:
        raise ParamsError(path, loader.repeated)
    return text, node


def _loader(text: str) -> _Loader:
    loader = _Loader(text)
    loader.repeated = []
    return loader


def _read(path: Path) -> str:
    data = path.read_bytes()
    if (encoding := encoding_of(data)[0]) != "utf-8":
        raise ParamsError(path, [f"the file is {encoding.upper()}, which DVC does not read; save it as UTF-8"])
    return decode_text(data)


@contextmanager
def _yaml_errors(path: Path, absent: str = "") -> Iterator[None]:
    """Turn every error of reading a YAML file into a BiloraError."""
    try:
        yield
    except FileNotFoundError:
        raise ParamsError(path, [f"the file does not exist{absent and f'; {absent}'}"]) from None
    except OSError as error:
        raise path_error(path, error) from None
    except NotText as error:
        raise ParamsError(path, [f"line {error.line}: the file {error}; save it as UTF-8"]) from None
    except RecursionError:
        raise ParamsError(path, ["its YAML is nested too deeply"]) from None
    except yaml.YAMLError as error:
        raise ParamsError(path, [_not_yaml(error)]) from None


def _not_yaml(error: yaml.YAMLError) -> str:
    """Return where and why a file is not YAML, in one line."""
    if isinstance(error, yaml.reader.ReaderError):
        return f"not YAML: the character {chr(error.character)!a} at position {error.position} is not allowed"
    if not isinstance(error, yaml.MarkedYAMLError):
        return f"not YAML: {error}"
    mark = error.problem_mark
    location = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    context = error.context if (error.problem or "").startswith("but") else None
    problem = ", ".join(filter(None, (context, error.problem)))
    tabs = "; indent with spaces, not tabs" if "\\t" in (error.problem or "") else ""
    return f"not YAML: {location}{problem or error.context}{tabs}"
