"""A user's own recipe: their data, their model, and settings like those of the catalog's recipes."""

import dataclasses
import functools
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal

from recipes.config.errors import UserError, nearest, require
from recipes.config.fields import Settings
from recipes.config.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Parts:
    """Data in three parts.

    Attributes:
        train, validation, test: Each an (inputs, targets) pair of arrays whose first axis counts the examples, or
            a `tf.data.Dataset` of single (input, target) examples whose cardinality is known.
    """

    train: Any
    validation: Any
    test: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnData(Settings):
    """The data that the recipe's function loads."""

    group = "data"

    source: Literal["own"] = "own"
    """own, the only source."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnSettings(Recipe):
    """Settings of an own recipe; `own_recipe` derives a class with the type of the model's settings.

    Attributes:
        name, load_data, build, loss, compile_metrics: The arguments of `own_recipe`.
    """

    name: ClassVar[str]
    load_data: ClassVar[Callable[[], Parts]]
    build: ClassVar[Callable[[Any], Any]]
    loss: ClassVar[Any]
    compile_metrics: ClassVar[Sequence[Any]]

    data: OwnData = OwnData()


def own_recipe(
    name: str,
    load_data: Callable[[], Parts],
    build: Callable[[Any], Any],
    model: Any,
    loss: Any,
    metrics: Sequence[Any] = (),
    **settings: Any,
) -> OwnSettings:
    """Return a recipe of one's own, which trains, resumes, prunes and is searched like those of the catalog.

    Args:
        name: Its name; runs go to runs/NAME/.
        load_data: Returns the data.
        build: Returns a Keras model, from the settings of the model.
        model: Settings of the model, a frozen dataclass: flags of the command line, dimensions of a search.
        loss: As `keras.Model.compile` takes it.
        metrics: As `keras.Model.compile` takes them.
        **settings: Optimizer, schedule, training and other groups of settings, from `recipes.config`.

    Raises:
        UserError: Settings of the model that are not a dataclass.
    """
    require(
        dataclasses.is_dataclass(model) and not isinstance(model, type),
        "model must be an instance of a frozen dataclass",
        model=model,
    )
    names = [metric if isinstance(metric, str) else metric.name for metric in metrics]
    own = dataclasses.make_dataclass(
        "OwnSettings",
        [("model", type(model), model)],
        bases=(OwnSettings,),
        frozen=True,
        kw_only=True,
        namespace={
            "__doc__": f"The recipe {name}.",
            "name": name,
            "load_data": staticmethod(load_data),
            "build": staticmethod(build),
            "loss": loss,
            "compile_metrics": tuple(metrics),
            "metrics": ("validation_loss", *(f"validation_{each}" for each in names)),
        },
    )
    made: OwnSettings = own(**settings)
    return made


def load_own_recipe(place: str) -> OwnSettings:
    """Return the recipe at `FILE.py`, `FILE.py:NAME` or `package.module:NAME`; NAME defaults to `recipe`.

    Raises:
        UserError: A file or a module that is not there, or that defines no such recipe.
    """
    source, _, name = place.rpartition(":") if ":" in place else (place, "", "recipe")
    module = _import_file(Path(source).resolve()) if source.endswith(".py") else _import_module(source)
    found = getattr(module, name, None)
    if not isinstance(found, OwnSettings):
        recipes = [each for each, value in vars(module).items() if isinstance(value, OwnSettings)]
        raise UserError(f"{source} defines no recipe {name!r}. {nearest(name, recipes)}")
    return found


@functools.cache
def _import_file(path: Path) -> ModuleType:
    main = sys.modules["__main__"]
    if getattr(main, "__file__", None) and Path(str(main.__file__)).resolve() == path:
        return main
    spec = importlib.util.spec_from_file_location(f"own_recipe_{path.stem}", path)
    if not path.exists() or spec is None or spec.loader is None:
        raise UserError(f"There is no recipe file {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(f"There is no module {error.name!r}") from error


def place_of(recipe: OwnSettings) -> str:
    """Return where a recipe is defined, as `load_own_recipe` takes it; its name in a notebook."""
    module = sys.modules[recipe.build.__module__]
    named: Mapping[str, Any] = vars(module)
    file = getattr(module, "__file__", None)
    name = next((each for each, value in named.items() if type(value) is type(recipe)), None)
    return f"{Path(file).resolve()}:{name}" if file and name else recipe.name
