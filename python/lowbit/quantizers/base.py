# SPDX-License-Identifier: Apache-2.0
"""What every quantizer is, and how one becomes known: by its name, its alias, its factory."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, ParamSpec, TypeVar

import tensorflow as tf

from lowbit import _arguments, _autograph, gradients

_P = ParamSpec("_P")
_Q = TypeVar("_Q", bound="Quantizer")

# The classes by name; and by alias, with those arguments that are not the defaults.
CLASSES: dict[str, type[Quantizer]] = {}
ALIASES: dict[str, tuple[type[Quantizer], dict[str, Any]]] = {}

EXAMPLE_X = [[-2.0, -0.5, 0.0], [0.5, 1.0, 2.0]]
EXAMPLE_DY = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]


class Example(NamedTuple):
    """A call of an op on `EXAMPLE_X`, and of its gradient on `EXAMPLE_DY`, exact in float32.

    Attributes:
        arguments: Of the function in `lowbit.ops`, besides x.
        y: The output.
        grad_arguments: Of the function of the gradient, besides dy and x; None for a
            straight-through one, which has dy alone.
        dx: The gradient of x.
        sums: The other gradients, sums over all elements.
    """

    arguments: dict[str, Any]
    y: list[list[float]]
    grad_arguments: dict[str, Any] | None = None
    dx: list[list[float]] = EXAMPLE_DY
    sums: tuple[float, ...] = ()


class Quantizer(tf.Module):
    """A quantizer: `y = quantizer(x)`, with a gradient. Equal to another of the same arguments.

    A `tf.Module`, so that whatever holds it saves the variables among its arguments.

    Attributes:
        op_type: The type of its op in TensorFlow's registry.
        dtype: The dtype of `x` and `y`.
        bits: Bits that a value of `y` takes when it is stored.
        scale_names: The attributes that hold its trained scalars.
        example: A call of its op.
    """

    op_type: str
    dtype: tf.DType
    bits: int
    scale_names: tuple[str, ...] = ()
    example: Example
    _input_name = "x"

    @property
    def autograph_info__(self) -> None:
        """For AutoGraph, which leaves alone what has it: the classes here, but not the user's."""
        if not type(self).__module__.startswith(f"{__package__}."):
            raise AttributeError("autograph_info__")

    @_autograph.leave
    def __call__(self, x: Any) -> tf.Tensor:
        """Quantizes a tensor.

        Args:
            x: A dense tensor, array or nested list of the quantizer's dtype, of any shape.

        Returns:
            A tensor of the shape and dtype of `x`.

        Raises:
            TypeError: `x` is no dense tensor, or has another dtype.
            tf.errors.InvalidArgumentError: An argument that is a tensor has a wrong value.
        """
        if not isinstance(x, tf.Tensor) or x.dtype is not self.dtype:
            x = self._checked(x)
        return self._quantize(x)

    def _checked(self, x: Any) -> tf.Tensor | tf.Variable:
        x = _arguments.tensor(x, self._input_name, self.dtype)
        if x.dtype != self.dtype:
            name, given = self._input_name, x.dtype.base_dtype.name
            raise TypeError(
                f"{name} must have the quantizer's dtype {self.dtype.name}, got {given}: make the "
                f"quantizer with dtype=tf.{given}, or cast {name} to tf.{self.dtype.name}"
            )
        return x

    def _quantize(self, x: tf.Tensor | tf.Variable) -> tf.Tensor:
        raise NotImplementedError

    def scale_count(self, shape: Sequence[int]) -> int:
        """How many scales are stored beside a quantized tensor.

        Args:
            shape: Of the tensor.

        Returns:
            A number of values of the quantizer's dtype.
        """
        return 1

    @classmethod
    def parameters(cls) -> list[str]:
        """The names of the arguments that it is made with."""
        # Of __init__: a class may have a __new__ that takes anything, as Keras's layers do.
        _, *names = inspect.signature(cls.__init__).parameters
        return names

    def arguments(self) -> dict[str, Any]:
        """The arguments that it was made with, all of them: a variable is that variable."""
        return {name: getattr(self, name) for name in self.parameters()}

    def get_config(self) -> dict[str, Any]:
        """The arguments, fit for JSON.

        The dtype is given by name, and so is a `backward` of `lowbit.gradients`. A tensor or
        variable is given by its value, if it has one outside of a graph.
        """
        config = {name: _arguments.plain(value) for name, value in self.arguments().items()}
        if "backward" in config:
            config["backward"] = gradients.serialize(config["backward"])
        return {**config, "dtype": self.dtype.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Quantizer:
        """The quantizer of a configuration.

        Args:
            config: As `get_config` returned it.

        Returns:
            A new quantizer, with no state of the old one.
        """
        return cls(**config)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__.pop(_KEY, None)  # that of the former arguments
        super().__setattr__(name, value)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._key().arguments == other._key().arguments

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> _Key:
        """For a `tf.function`, which compares its arguments at every call."""
        key: _Key | None = self.__dict__.get(_KEY)
        if key is None:
            # Not by an attribute of TensorFlow's, which would track and wrap it.
            key = self.__dict__[_KEY] = _Key(self)
        return key

    def __copy__(self) -> Quantizer:
        return self._with(lambda value: value)

    def __deepcopy__(self, memo: dict[int, Any]) -> Quantizer:
        # First: in a configuration, the quantizer may be among what it holds.
        return self._with(lambda value: copy.deepcopy(value, memo), memo)

    def _with(self, copied: Callable[[Any], Any], memo: dict[int, Any] | None = None) -> Quantizer:
        """A quantizer with the attributes as they are copied, which tracks its own."""
        new = type(self).__new__(type(self))
        if memo is not None:
            memo[id(self)] = new
        new.__setstate__({name: copied(value) for name, value in self._attributes().items()})
        return new

    def _attributes(self) -> dict[str, Any]:
        # All but the lists of TensorFlow's tracking, which a copy has to have of its own.
        kept = vars(self).items()
        return {name: v for name, v in kept if name != _KEY and not name.startswith("_self_")}

    def __getstate__(self) -> dict[str, Any]:
        return self._attributes()

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


_KEY = "_cached_key"


class _Key:
    """The arguments of a quantizer as they compare and hash: tensors and variables by identity."""

    __slots__ = ("_hash", "arguments")

    def __init__(self, quantizer: Quantizer) -> None:
        self.arguments = (
            type(quantizer),
            *(id(v) if _arguments.is_tensor(v) else v for v in quantizer.arguments().values()),
        )
        self._hash: int | None = None

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(self.arguments)
        return self._hash


def register(alias: str, **arguments: Any) -> Callable[[type[_Q]], type[_Q]]:
    """Makes a class known to `lowbit.get`, to Keras's files and to the doctor.

    Args:
        alias: What stands for it.
        arguments: What the alias makes it with, where that is not the default.
    """

    def add(cls: type[_Q]) -> type[_Q]:
        cls.op_type = cls.__name__
        CLASSES[cls.__name__] = cls
        ALIASES[alias] = cls, arguments
        return cls

    return add


def replace(replacement: type[Quantizer]) -> None:
    """Lets the alias and the factory of a class make another class of that name."""
    CLASSES[replacement.__name__] = replacement
    for alias, (cls, arguments) in ALIASES.items():
        if cls.__name__ == replacement.__name__:
            ALIASES[alias] = replacement, arguments


def factory(cls: Callable[_P, _Q]) -> Callable[_P, _Q]:
    """The function that makes quantizers of a class, with the name that Blueoil's would have."""
    name = cls.__name__

    def make(*args: _P.args, **kwargs: _P.kwargs) -> _Q:
        made: Any = CLASSES[name]
        return made(*args, **kwargs)

    make.makes = name  # type: ignore[attr-defined]
    make.__name__ = make.__qualname__ = function_name(name)
    make.__module__ = cls.__module__
    make.__doc__ = cls.__doc__
    make.__signature__ = inspect.signature(cls).replace(return_annotation=cls)  # type: ignore[attr-defined]
    return _autograph.leave(make)


def function_name(op_type: str) -> str:
    """The name of an op's function in `lowbit.ops`, and of its quantizer's factory."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", op_type).lower()
