# SPDX-License-Identifier: Apache-2.0
"""Quantizers with trained scalars: who makes the variables, when, and for whom."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, ClassVar

import tensorflow as tf

from lowbit import _autograph
from lowbit.quantizers.base import Quantizer


class TrainedQuantizer(Quantizer):
    """A quantizer that is trained itself: the attributes `scale_names` are variables.

    They are made by the first call; until then, and in TF1 graphs, where each call has variables of
    its own scope, they are None. Whatever holds the quantizer saves and trains them, and no other
    quantizer is equal to it. A call under a strategy of `tf.distribute` raises `ValueError` where
    they belong to another one, or to none.

    Attributes:
        initial: Where they start: a number, or "mean" for mean(|w|) of the first weights.
        for_activations: Whether it is for activations, not for weights.
    """

    initial: Any
    for_activations = False
    # Those made before Keras was imported, which layers/_trained.py makes layers of.
    without_keras: ClassVar[weakref.WeakSet[Any]] = weakref.WeakSet()
    # A `tf.function` takes equal arguments for one: it would use the scales of the first it met.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __init__(self) -> None:
        super().__init__()
        if not self.scale_names:
            raise TypeError(f"{type(self).__name__}.scale_names must name its trained scalars")
        for name in self.scale_names:
            setattr(self, name, None)
        self.without_keras.add(self)
        self._strategy = _Strategy()
        self._trace: _Trace | None = None

    @property
    def scales(self) -> tuple[Any, ...] | None:
        """The trained scalars, or None where they have not been made."""
        # The first one is set last, and read first.
        found = attrgetter(*self.scale_names)(self)
        scales: tuple[Any, ...] = found if len(self.scale_names) > 1 else (found,)
        return None if scales[0] is None else scales

    @property
    def scale_dtype(self) -> tf.DType:
        """Their dtype."""
        return self.dtype

    def scale_count(self, shape: Sequence[int]) -> int:
        """Those that are trained."""
        return len(self.scale_names)

    @_autograph.leave
    def _scales_for(self, x: tf.Tensor | tf.Variable) -> tuple[Any, ...]:
        """Those of a call."""
        if tf.compat.v1.executing_eagerly_outside_functions():
            if self._trace is not None:
                self._settle(self._trace)
            scales = self.scales
            if scales is None:
                return self._take(self._make_variables(x))
            # Keras looks after its own.
            if isinstance(scales[0], tf.Variable) and tf.distribute.has_strategy():
                _check_scope(self)
            return scales
        return tuple(
            tf.compat.v1.get_variable(
                name, [], self.scale_dtype, lambda *_, **__: self.initial_scale(x)
            )
            for name in self.scale_names
        )

    def _take(self, made: tuple[tf.Variable, ...]) -> tuple[Any, ...]:
        """Makes them the scales, unless another thread was first."""
        with taking:
            if self.scales is None:
                self._trace = _Trace() if _is_uninitialized(made[-1]) else None
                self.set_scales(made)
            scales = self.scales
            assert scales is not None
            return scales

    def set_scales(self, scales: tuple[Any, ...]) -> None:
        """Sets them, such that who sees the first one, without a lock, sees all."""
        for name, scale in reversed(list(zip(self.scale_names, scales, strict=True))):
            setattr(self, name, scale)

    def _settle(self, trace: _Trace) -> None:
        """Forgets scales that a function was to initialise which could not be traced."""
        if not self._is_uninitialized():
            self._trace = None
        elif trace.has_failed(self._is_uninitialized):
            with taking:
                if self._trace is trace:
                    self._trace = None
                    for name in self.scale_names:
                        setattr(self, name, None)

    def _is_uninitialized(self) -> bool:
        scales = self.scales
        return scales is not None and _is_uninitialized(scales[-1])

    def _make_variables(self, x: tf.Tensor | tf.Variable) -> tuple[tf.Variable, ...]:
        strategy = self._strategy()
        if strategy and not tf.distribute.has_strategy():
            # Else the replicas would share a variable of the caller's, and each would update it.
            with strategy.scope():
                return self._make_variables(x)
        if self.starts_at_mean and not is_known(x):
            # A value of the function being traced, which initialises from it at its first run.
            return tuple(
                tf.Variable(lambda: self.initial_scale(x), dtype=self.scale_dtype, name=name)
                for name in self.scale_names
            )
        with tf.init_scope():
            initial = self.initial_scale(x)
            return tuple(
                tf.Variable(initial, dtype=self.scale_dtype, name=name) for name in self.scale_names
            )

    @property
    def starts_at_mean(self) -> bool:
        """Whether the scales start at mean(|w|) of the first weights."""
        return isinstance(self.initial, str)  # not ==, which a tensor takes for itself

    def initial_scale(self, x: Any) -> tf.Tensor:
        """Where all scales start.

        Args:
            x: The first x, of the quantizer's dtype.

        Returns:
            A scalar of `scale_dtype`: `initial`, or mean(|x|) if that is "mean".
        """
        if self.starts_at_mean:
            return tf.cast(tf.reduce_mean(tf.abs(x)), self.scale_dtype)
        return tf.cast(self.initial, self.scale_dtype)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        for name in self.scale_names:
            if isinstance(state[name], tf.distribute.DistributedValues):
                state[name] = _PickledVariable(state[name])  # a strategy's cannot be pickled
        return state


def _is_uninitialized(scale: Any) -> bool:
    with tf.init_scope():
        return isinstance(scale, tf.Variable) and not scale.is_initialized()


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

    made: Callable[..., Any] = staticmethod(_variable)  # with Keras, one of its own

    def __init__(self, scale: Any) -> None:
        self._scale = scale

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _scale, (self._scale.numpy(), self._scale.dtype, self._scale.name)


def _scale(value: Any, dtype: str, name: str) -> Any:
    return PickledScale.made(value, dtype, name)


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


def _check_scope(quantizer: TrainedQuantizer) -> None:
    """Of a scale that it did not make, a strategy lets each replica train a value of its own."""
    strategy = tf.distribute.get_strategy()
    if not strategy.extended.variable_created_in_scope(
        getattr(quantizer, quantizer.scale_names[0])
    ):
        raise ValueError(
            f"{' and '.join(quantizer.scale_names)} must belong to the strategy that runs the "
            f"quantizer, {type(strategy).__name__}, got those of a quantizer that was made and "
            "first called outside of its scope"
        )


def is_known(tensor: Any) -> bool:
    """Whether the value can be read outside of the function that is being traced, if any."""
    return isinstance(tensor, tf.Variable) or hasattr(tensor, "numpy")
