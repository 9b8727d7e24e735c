# SPDX-License-Identifier: Apache-2.0
"""What names a quantizer: an alias, a configuration, or the quantizer itself."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from lowbit import _arguments, _autograph
from lowbit.keras.compat import PACKAGE
from lowbit.keras.serialization import deserialized
from lowbit.quantizers.base import ALIASES, CLASSES, Quantizer


@_autograph.leave
def get(
    identifier: Any, *, dtype: Any = None, axis: int | None = None
) -> Callable[[Any], Any] | None:
    """The quantizer that an identifier stands for.

    `"linear"` has 2 bits and a maximum of 2, as Blueoil's networks; `"ttq"` starts its scales at
    the mean of the absolute weights; `"pact"` has 2 bits; all others have the defaults of their
    factories.

    Args:
        identifier: One of

            - an alias, such as `"linear"` or `"ttq"`: docs/keras.md and the error for an unknown
              one have all;
            - a configuration: `{"class_name": alias or class, "config": arguments}`, which may omit
              arguments, or what `keras.saving.serialize_keras_object` made;
            - a quantizer, or any other callable, or None: returned as it is.
        dtype: Of a quantizer made here whose configuration does not say; default float32.
        axis: The channel axis of such a quantizer, if it has one; default -1.

    Returns:
        A callable, or None.

    Raises:
        ValueError: The alias is unknown, or an argument is out of range.
        TypeError: The identifier is none of these, or an argument has a wrong type.
    """
    if isinstance(identifier, str):
        identifier = {"class_name": identifier, "config": {}}
    if isinstance(identifier, dict):
        return _from_config(identifier, {"dtype": dtype, "axis": axis})
    return _checked(identifier)


def get_own(identifier: Any, dtype: Any, axis: int | None = None) -> Callable[[Any], Any] | None:
    """As `get`, but a quantizer of lowbit is copied, so that its trained scalars are not shared."""
    found = get(identifier, dtype=dtype, axis=axis)
    if found is identifier and isinstance(found, Quantizer):
        return found.from_config(found.arguments())
    return found


def leaves_axis_open(identifier: Any) -> bool:
    """Whether it is an alias or configuration that does not say which axis has the channels."""
    if isinstance(identifier, dict):
        return "axis" not in (identifier.get("config") or {})
    return isinstance(identifier, str)


def _checked(identifier: Any) -> Callable[[Any], Any] | None:
    """A quantizer, any other callable, or None, as it is."""
    if isinstance(identifier, types.FunctionType) and hasattr(identifier, "makes"):
        name = identifier.__name__
        raise TypeError(f"a quantizer must be {_choices()}, got the factory: call {name}()")
    if identifier is None or (callable(identifier) and not isinstance(identifier, type)):
        return identifier
    raise TypeError(f"a quantizer must be {_choices()}, got {_arguments.shown(identifier)}")


def _from_config(
    identifier: dict[str, Any], defaults: dict[str, Any]
) -> Callable[[Any], Any] | None:
    name, config = identifier.get("class_name"), identifier.get("config")
    registered = identifier.get("registered_name")
    known = isinstance(name, str) and registered in (None, f"{PACKAGE}>{name}")
    if known and name in ALIASES:
        cls, own_defaults = ALIASES[name]
    elif known and name in CLASSES:
        cls, own_defaults = CLASSES[name], {}
    elif registered is None and "module" not in identifier:
        raise ValueError(f"a quantizer must be {_choices()}, got {_arguments.shown(name)}")
    else:
        return _checked(deserialized(identifier, "a quantizer"))
    accepted = cls.parameters()
    if config is None:
        config = {}
    elif not isinstance(config, dict):
        required = f"a dict of the arguments of {name}"
        raise TypeError(f"config must be {required}, got {_arguments.shown(config)}")
    for argument in config.keys() - set(accepted):
        names = ", ".join(accepted)
        raise TypeError(
            f"config must have arguments of {name} ({names}), got {_arguments.shown(argument)}"
        )
    given = {k: v for k, v in defaults.items() if v is not None and k in accepted}
    return cls.from_config({**own_defaults, **given, **config})


def _choices() -> str:
    aliases = ", ".join(map(repr, ALIASES))
    return f"one of {aliases}, a configuration, a callable, or None"
