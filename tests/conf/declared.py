"""Which declarations a definition exercises: what of the model was read from it."""

import importlib
import pkgutil
from collections.abc import Iterator

import virtd.conf.domain
from virtd.conf.domain.domain import Domain
from virtd.conf.xml.model import Model


def declarations() -> set[str]:
    """Every declaration of a guest's model, "Class.field"."""
    for module in pkgutil.iter_modules(virtd.conf.domain.__path__):
        importlib.import_module(f"virtd.conf.domain.{module.name}")
    reached: set[type[Model]] = set()
    waiting: list[type[Model]] = [Domain]
    while waiting:
        model = waiting.pop()
        if model in reached:
            continue
        reached.add(model)
        waiting += model.kinds.values() if model.by else []
        waiting += [field.model for field in model.fields.values() if hasattr(field, "model")]
    return {f"{model.__name__}.{name}" for model in reached if not (model.by and model.kinds) for name in model.fields}


def exercised(model: Model) -> Iterator[str]:
    """The declarations that have a value of their own in a model and all that is in it."""
    for name, field in model.fields.items():
        value = getattr(model, name)
        if value is None or value == [] or (value is False and field.default is False):
            continue
        inner = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, Model)]
        for one in inner:
            yield from exercised(one)
        if not inner or any(set(one.__dict__) - {"kind"} for one in inner) or not getattr(field, "always", False):
            yield f"{type(model).__name__}.{name}"
