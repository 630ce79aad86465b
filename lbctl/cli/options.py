"""An option of a command for each key of the site file that it can set, as the key is declared (lbctl.site.model)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar, cast

import typer

from lbctl.site.forms import Choice, Form, Whole
from lbctl.site.keys import Declared

Command = TypeVar("Command", bound=Callable[..., None])


def with_options(keys: Iterable[Declared]) -> Callable[[Command], Command]:
    """Gives a command these keys as options. It takes them as **given: by the key's name; None: it is not given."""
    return _with_parameters([_option(each, each.default) for each in keys])


def with_changes(keys: Iterable[Declared]) -> Callable[[Command], Command]:
    """The same, and an option more for each of them that a part need not have, which takes it away; see `changes`."""
    return _with_parameters([parameter for each in keys for parameter in (
        _option(each, None), *([_flag(each)] if each.key.absent else []))])


def changes(keys: Iterable[Declared], given: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that are to be changed, of what a command with_changes is given; None: it is taken away. Raises
    BadParameter if there is none, or if one is to be changed and taken away."""
    found: dict[str, Any] = {}
    options: list[str] = []
    for each in keys:
        options.append(_name(each.name))
        if given[each.name] is not None:
            found[each.name] = given[each.name]
        if not each.key.absent:
            continue
        flag = _name(each.key.absent)
        options.append(flag)
        if given[_identifier(each.key.absent)]:
            if each.name in found:
                raise typer.BadParameter(f"{_name(each.name)} and {flag} exclude each other", param_hint=flag)
            found[each.name] = None
    if not found:
        *others, last = options
        raise typer.BadParameter(f"nothing is to be changed: give {', '.join(others)} or {last}", param_hint=options[0])
    return found


def told(keys: Iterable[Declared], view: Mapping[str, Any]) -> str:
    """What the keys are, in a sentence; view: of a part, as REST shows it."""
    return ", ".join(
        (each.key.shown or f"{each.name} {{}}").format(view[each.name])
        if view[each.name] is not None
        else str(each.key.absent)
        for each in keys
    )


def _option(declared: Declared, default: object) -> inspect.Parameter:
    """default: what it is if the option is not given; of a key that not all variants have, nothing is said, and None is
    given."""
    key = declared.key
    known = default if isinstance(default, int | str) and not key.variants else None
    option = typer.Option(
        _name(declared.name), help=f"{key.meaning[0].upper()}{key.meaning[1:]}.", **_bounds(declared.form)
    )
    return inspect.Parameter(declared.name, inspect.Parameter.KEYWORD_ONLY, default=known,
                             annotation=Annotated[_type(declared.form) | None, option])


def _flag(declared: Declared) -> inspect.Parameter:
    absent = declared.key.absent or ""
    option = typer.Option(_name(absent), help=f"Take its {declared.name} away.")
    return inspect.Parameter(
        _identifier(absent), inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, option]
    )


def _type(form: Form[Any]) -> Any:
    if isinstance(form, Choice):
        return cast(Any, Literal)[form.choices]
    return int if isinstance(form, Whole) else str


def _bounds(form: Form[Any]) -> dict[str, Any]:
    return {"min": form.low, "max": form.high} if isinstance(form, Whole) else {}


def _with_parameters(parameters: list[inspect.Parameter]) -> Callable[[Command], Command]:
    """Typer asks a command's signature which options there are: they take the place of **given."""

    def decorate(command: Command) -> Command:
        own = [
            each
            for each in inspect.signature(command, eval_str=True).parameters.values()
            if each.kind is not each.VAR_KEYWORD
        ]
        arguments = [each for each in own if each.default is each.empty]
        options = [each.replace(kind=each.KEYWORD_ONLY) for each in own if each.default is not each.empty]
        signature = inspect.Signature([*arguments, *parameters, *options])
        setattr(command, "__signature__", signature)  # noqa: B010 - any function may have one
        return command

    return decorate


def _name(words: str) -> str:
    return "--" + words.replace("_", "-").replace(" ", "-")


def _identifier(words: str) -> str:
    return words.replace(" ", "_")
