# SPDX-License-Identifier: Apache-2.0
"""What the factories return: callables that know, show and compare their configuration."""

from __future__ import annotations

import copy
import inspect
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import tensorflow as tf

from lowbit import _arguments, _autograph, _backward, gradients, ops


class Quantizer(tf.Module):
    """A quantizer: `y = quantizer(x)`, with a gradient. Equal to another of the same arguments.

    A `tf.Module`, so that whatever holds it saves the variables among its arguments.

    Attributes:
        op_type: The type of its op in TensorFlow's registry.
        dtype: The dtype of `x` and `y`.
        bits: Bits that a value of `y` takes when it is stored.
        scale_names: The attributes that hold its trained scalars.
    """

    op_type: str
    dtype: tf.DType
    bits: int
    scale_names: tuple[str, ...] = ()
    _input_name = "x"

    @property
    def autograph_info__(self) -> None:
        """For AutoGraph, which leaves alone what has it: the classes here, but not the user's."""
        if type(self).__module__ != __name__:
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
        return self._quantize(self._checked(x))

    def _checked(self, x: Any) -> tf.Tensor | tf.Variable:
        x = _arguments.tensor(x, self._input_name, self.dtype)
        if x.dtype is not self.dtype and x.dtype != self.dtype:
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
        state = self._attributes()
        for name in self.scale_names:
            if isinstance(state[name], tf.distribute.DistributedValues):
                state[name] = _PickledVariable(state[name])  # a strategy's cannot be pickled
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


_KEY = "_cached_key"


class _PickledVariable:
    """A variable of a strategy: where the pickle is read, it becomes one of the strategy there."""

    def __init__(self, variable: tf.Variable) -> None:
        self._variable = variable

    def __reduce__(self) -> tuple[Callable[..., tf.Variable], tuple[Any, ...]]:
        name = self._variable.name.partition(":")[0]
        return _variable, (self._variable.numpy(), self._variable.dtype.name, name)


def _variable(value: Any, dtype: str, name: str) -> tf.Variable:
    return tf.Variable(value, dtype=dtype, name=name)


class PickledScale:
    """A scale that Keras looks after, if it does where the pickle is read."""

    def __init__(self, scale: Any) -> None:
        self._scale = scale

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _scale, (self._scale.numpy(), self._scale.dtype, self._scale.name)


def _scale(value: Any, dtype: str, name: str) -> Any:
    return TTQWeightQuantizer._pickled_scale(value, dtype, name)


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


class LinearMidTreadHalfQuantizer(Quantizer):
    """Activations to `2^bit` levels: what `lowbit.linear_mid_tread_half_quantizer` returns."""

    op_type = "LinearMidTreadHalfQuantizer"

    def __init__(
        self,
        bit: Any = None,
        max_value: Any = None,
        backward: _backward.Backward | str | None = None,
        dtype: Any = tf.float32,
    ) -> None:
        super().__init__()
        self.dtype = _arguments.dtype(dtype)
        self.bit = self.bits = _arguments.bit(bit)
        self.max_value = _arguments.max_value(max_value, self.dtype)
        self.backward = gradients.get(backward)

    def scale_count(self, shape: Sequence[int]) -> int:
        """None: its levels are constants."""
        return 0

    def _quantize(self, x: tf.Tensor | tf.Variable) -> tf.Tensor:
        forward = ops.linear_mid_tread_half_quantizer
        if self.backward is None:
            return forward(x, self.bit, self.max_value)
        m = getattr(self.max_value, "dtype", _arguments.hyper_dtype(self.dtype))
        bit = tf.convert_to_tensor(self.bit, tf.int32)
        inputs = {"x": x, "bit": bit, "max_value": tf.convert_to_tensor(self.max_value, m)}
        return _backward.call(self.op_type, forward, inputs, {"M": m}, self.backward)


class BinaryMeanScalingQuantizer(Quantizer):
    """Weights to two values: what `lowbit.binary_mean_scaling_quantizer` returns."""

    op_type = "BinaryMeanScalingQuantizer"
    bits = 1

    def __init__(
        self, backward: _backward.Backward | str | None = None, dtype: Any = tf.float32
    ) -> None:
        super().__init__()
        self.dtype = _arguments.dtype(dtype)
        self.backward = gradients.get(backward)

    def _quantize(self, x: tf.Tensor | tf.Variable) -> tf.Tensor:
        forward = ops.binary_mean_scaling_quantizer
        if self.backward is None:
            return forward(x)
        return _backward.call(self.op_type, forward, {"x": x}, {}, self.backward)


class BinaryChannelWiseMeanScalingQuantizer(Quantizer):
    """Weights to two values a channel: `lowbit.binary_channel_wise_mean_scaling_quantizer`'s."""

    op_type = "BinaryChannelWiseMeanScalingQuantizer"
    bits = 1

    def __init__(
        self,
        backward: _backward.Backward | str | None = None,
        dtype: Any = tf.float32,
        *,
        axis: int = -1,
    ) -> None:
        super().__init__()
        self.dtype = _arguments.dtype(dtype)
        self.backward = gradients.get(backward)
        self.axis = _arguments.axis(axis)

    def scale_count(self, shape: Sequence[int]) -> int:
        """One a channel."""
        return shape[self.axis]

    def _quantize(self, x: tf.Tensor | tf.Variable) -> tf.Tensor:
        if self.backward is None:
            return self._forward(x)
        attributes = {"axis": self.axis}
        return _backward.call(self.op_type, self._forward, {"x": x}, attributes, self.backward)

    def _forward(self, x: tf.Tensor | tf.Variable) -> tf.Tensor:
        return ops.binary_channel_wise_mean_scaling_quantizer(x, self.axis)


class TTQWeightQuantizer(Quantizer):
    """Weights to three values, two of them trained: what `lowbit.ttq_weight_quantizer` returns.

    Whatever holds it saves and trains its variables, and no other one is equal to it. A call under
    a strategy of `tf.distribute` raises `ValueError` where they belong to another one, or to none.

    Attributes:
        positive: The scale of the weights above the threshold, a variable; None before the first
            call, and in TF1 graphs, where each call has variables of its own scope.
        negative: The scale of those below it, likewise.
    """

    op_type = "TTQWeightQuantizer"
    bits = 2
    scale_names = ("positive", "negative")
    _input_name = "weights"
    _pickled_scale = staticmethod(_variable)  # what that becomes; with Keras, one of its own
    # Those that were made before Keras was imported, which makes layers of them (layers/_ttq.py).
    _without_keras: ClassVar[weakref.WeakSet[Any]] = weakref.WeakSet()
    # A `tf.function` takes equal arguments for one: it would use the scales of the first it met.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __init__(
        self,
        threshold: Any = 0.05,
        dtype: Any = tf.float32,
        *,
        negative_gradient: str = "exact",
        initial: Any = 1.0,
    ) -> None:
        super().__init__()
        self.dtype = _arguments.dtype(dtype)
        self.threshold = _arguments.threshold(threshold, self.dtype, below=1)
        self.negative_gradient = _arguments.choice(
            negative_gradient, "negative_gradient", ("exact", "paper")
        )
        self.initial = _arguments.initial(initial, self.dtype)
        self.positive: tf.Variable | None = None
        self.negative: tf.Variable | None = None
        self._without_keras.add(self)
        self._strategy = _Strategy()
        self._trace: _Trace | None = None

    def scale_count(self, shape: Sequence[int]) -> int:
        """The two that are trained."""
        return 2

    def _quantize(self, x: tf.Tensor | tf.Variable) -> tf.Tensor:
        positive, negative = self._scales(x)
        return ops.ttq_weight_quantizer(
            x, positive, negative, self.threshold, self.negative_gradient
        )

    def _scales(self, weights: tf.Tensor | tf.Variable) -> tuple[Any, Any]:
        if tf.compat.v1.executing_eagerly_outside_functions():
            if self._trace is not None:
                self._settle(self._trace)
            if self.positive is None:
                self._take(*self._make_variables(weights))
            elif tf.distribute.has_strategy() and isinstance(self.positive, tf.Variable):
                _check_scope(self.positive)  # Keras looks after its own
            return self.positive, self.negative
        return tuple(
            tf.compat.v1.get_variable(
                name, [], self.dtype, lambda *_, **__: self.initial_scale(weights)
            )
            for name in self.scale_names
        )

    def _take(self, positive: tf.Variable, negative: tf.Variable) -> None:
        """Makes them the scales, unless another thread was first."""
        with taking:
            if self.positive is None:
                # In this order, since others ask for the last one without the lock.
                self.negative = negative
                self._trace = _Trace() if self._is_uninitialized() else None
                self.positive = positive

    def _settle(self, trace: _Trace) -> None:
        """Forgets scales that a function was to initialise which could not be traced."""
        if not self._is_uninitialized():
            self._trace = None
        elif trace.has_failed(self._is_uninitialized):
            with taking:
                if self._trace is trace:
                    self._trace = self.positive = self.negative = None

    def _is_uninitialized(self) -> bool:
        with tf.init_scope():
            return isinstance(self.negative, tf.Variable) and not self.negative.is_initialized()

    def _make_variables(self, weights: tf.Tensor | tf.Variable) -> tuple[tf.Variable, ...]:
        strategy = self._strategy()
        if strategy and not tf.distribute.has_strategy():
            # Else the replicas would share a variable of the caller's, and each would update it.
            with strategy.scope():
                return self._make_variables(weights)
        if self.starts_at_mean and not _known(weights):
            # A value of the function being traced, which initialises from it at its first run.
            return tuple(
                tf.Variable(lambda: self.initial_scale(weights), dtype=self.dtype, name=name)
                for name in self.scale_names
            )
        with tf.init_scope():
            initial = self.initial_scale(weights)
            return tuple(
                tf.Variable(initial, dtype=self.dtype, name=name) for name in self.scale_names
            )

    @property
    def starts_at_mean(self) -> bool:
        """Whether the scales start at mean(|w|) of the first weights."""
        return isinstance(self.initial, str)  # not ==, which a tensor takes for itself

    def initial_scale(self, weights: tf.Tensor | tf.Variable) -> tf.Tensor:
        """Where both scales start.

        Args:
            weights: The first weights, of the quantizer's dtype.

        Returns:
            A scalar of that dtype: `initial`, or mean(|w|) if that is "mean".
        """
        if self.starts_at_mean:
            return tf.reduce_mean(tf.abs(weights))
        return tf.cast(self.initial, self.dtype)


# Not while the variables are made, when the replicas of a strategy wait for each other.
taking = threading.Lock()


class _Trace:
    """The function that is being traced, whose first run is to initialise the variables of it."""

    _PATIENCE = 10.0  # seconds, for one of another thread

    def __init__(self) -> None:
        self._graph = weakref.ref(tf.compat.v1.get_default_graph())
        self._thread = threading.get_ident()

    def has_failed(self, is_uninitialized: Callable[[], bool]) -> bool:
        """Whether there will be no first run; waits for that of another thread."""
        deadline = time.monotonic() + self._PATIENCE
        mine = self._thread == threading.get_ident()
        while True:
            graph: Any = self._graph()
            if graph is None:
                return True
            try:
                done = len(graph.variables) > 0  # which it knows from its end on
            except AssertionError:  # some of them are gone
                done = True
            if graph in _graphs() or (done and mine):
                return False
            if not is_uninitialized():
                return False
            if mine or time.monotonic() > deadline:
                return not done
            del graph
            time.sleep(0.005)

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()  # of no other process


def _graphs() -> list[Any]:
    """The graph that is being built, and those around it."""
    graphs: list[Any] = [tf.compat.v1.get_default_graph()]
    while getattr(graphs[-1], "building_function", False):
        graphs.append(graphs[-1].outer_graph)
    return graphs


class _Strategy:
    """The strategy in whose scope it was made, weakly; returns None where there was none.

    That of a copy is the same one, not a copy of it; that of a pickle, the one where it is read.
    """

    def __init__(self) -> None:
        scoped = tf.distribute.has_strategy()
        self._found = weakref.ref(tf.distribute.get_strategy()) if scoped else None

    def __call__(self) -> tf.distribute.Strategy | None:
        return self._found() if self._found else None

    def __deepcopy__(self, memo: dict[int, Any]) -> _Strategy:
        return self

    def __reduce__(self) -> tuple[type[_Strategy], tuple[()]]:
        return _Strategy, ()


def _check_scope(scale: tf.Variable) -> None:
    """Of a scale that it did not make, a strategy lets each replica train a value of its own."""
    strategy = tf.distribute.get_strategy()
    if not strategy.extended.variable_created_in_scope(scale):
        raise ValueError(
            "positive and negative must belong to the strategy that runs the quantizer, "
            f"{type(strategy).__name__}, got those of a quantizer that was made and first called "
            "outside of its scope"
        )


def _known(tensor: tf.Tensor | tf.Variable) -> bool:
    """Whether the value can be read outside of the function that is being traced, if any."""
    return isinstance(tensor, tf.Variable) or hasattr(tensor, "numpy")


class TWNWeightQuantizer(Quantizer):
    """Weights to three values: what `lowbit.twn_weight_quantizer` returns."""

    op_type = "TWNWeightQuantizer"
    bits = 2
    _input_name = "weights"

    def __init__(
        self,
        threshold: Any = 0.7,
        dtype: Any = tf.float32,
        *,
        per_channel: bool = False,
        axis: int = -1,
    ) -> None:
        super().__init__()
        self.dtype = _arguments.dtype(dtype)
        self.threshold = _arguments.threshold(threshold, self.dtype)
        self.per_channel = _arguments.flag(per_channel, "per_channel")
        self.axis = _arguments.axis(axis)

    def scale_count(self, shape: Sequence[int]) -> int:
        """One, or one a channel."""
        return shape[self.axis] if self.per_channel else 1

    def _quantize(self, x: tf.Tensor | tf.Variable) -> tf.Tensor:
        return ops.twn_weight_quantizer(x, self.threshold, self.per_channel, self.axis)


class AbsmeanWeightQuantizer(Quantizer):
    """Weights to three values: what `lowbit.absmean_weight_quantizer` returns."""

    op_type = "AbsmeanWeightQuantizer"
    bits = 2
    _input_name = "weights"

    def __init__(
        self, dtype: Any = tf.float32, *, per_channel: bool = False, axis: int = -1
    ) -> None:
        super().__init__()
        self.dtype = _arguments.dtype(dtype)
        self.per_channel = _arguments.flag(per_channel, "per_channel")
        self.axis = _arguments.axis(axis)

    def scale_count(self, shape: Sequence[int]) -> int:
        """One, or one a channel."""
        return shape[self.axis] if self.per_channel else 1

    def _quantize(self, x: tf.Tensor | tf.Variable) -> tf.Tensor:
        return ops.absmean_weight_quantizer(x, self.per_channel, self.axis)
