"""Plugins: found lazily, collisions and typos named, a broken one takes nothing else down."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from earmark.errors import PluginError, UnknownNameError
from earmark.protocols import Family, ModelLoader
from earmark.registry import GROUPS, Registry, registry


def _point(name, value, group="earmark.families"):
    return EntryPoint(name=name, value=value, group=group)


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(UnknownNameError, match=r"did you mean 'autoregressive'\? registered: autoregressive"):
        registry("family").get("autoregresive")


def test_unknown_name_lists_the_registered_ones():
    with pytest.raises(UnknownNameError, match="quantise"):
        registry("scenario").get("zzzz")


def test_collision_names_both_origins():
    both = Registry("family", [_point("ctc", "one.package:Family"), _point("ctc", "another.package:Family")])
    with pytest.raises(PluginError, match=r"one\.package:Family.*another\.package|another\.package.*one\.package"):
        both.get("ctc")


def test_one_entry_point_found_twice_is_no_collision():
    twice = Registry("family", [_point("x", "earmark.verifiers.autoregressive:AutoregressiveFamily")] * 2)
    assert twice.get("x").name == "autoregressive"


def test_plugin_that_does_not_import_is_shown_and_harms_nobody():
    mixed = Registry(
        "family",
        [
            _point("broken", "no.such.module:Family"),
            _point("good", "earmark.verifiers.autoregressive:AutoregressiveFamily"),
        ],
    )
    states = {plugin.name: plugin.error for plugin in mixed.inspect_all()}
    assert states["good"] is None
    assert "ModuleNotFoundError" in states["broken"]
    assert "no.such.module:Family" in states["broken"]
    with pytest.raises(PluginError, match="does not load"):
        mixed.get("broken")


def test_nothing_is_imported_before_use():
    assert Registry("family", [_point("broken", "no.such.module:Family")]).names() == ["broken"]


@pytest.mark.parametrize("kind", GROUPS)
def test_our_own_plugins_load(kind):
    plugins = registry(kind).inspect_all()
    assert plugins
    assert [plugin.error for plugin in plugins] == [None] * len(plugins)


def test_families_and_models_keep_their_protocols():
    assert all(isinstance(plugin.value, Family) for plugin in registry("family").inspect_all())
    loaders = [plugin.value for plugin in registry("model").inspect_all()]
    assert all(isinstance(loader, ModelLoader) for loader in loaders)
    assert {loader.family for loader in loaders} <= set(registry("family").names())
