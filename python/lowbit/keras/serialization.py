# SPDX-License-Identifier: Apache-2.0
"""Keras's configurations of quantizers and gradient functions; Keras is imported when needed."""

from __future__ import annotations

from typing import Any

from lowbit import _arguments


def deserialized(configuration: dict[str, Any], name: str) -> Any:
    """What Keras makes of a configuration, for the argument `name`."""
    import keras

    try:
        return keras.saving.deserialize_keras_object(configuration)
    except (TypeError, ValueError):
        raise
    except Exception as error:  # of Keras, or of the class that the configuration names
        given = _arguments.shown(configuration)
        raise ValueError(f"{name} must be what Keras can deserialize, got {given}") from error


def serialize(identifier: Any) -> Any:
    """What `get` makes an equal quantizer of, fit for JSON: an alias or configuration as it is."""
    if identifier is None or isinstance(identifier, (str, dict)):
        return identifier
    import keras

    return keras.saving.serialize_keras_object(identifier)
