"""Simulated providers, honest and cheating: what they hand in, claiming that the reference made it."""

from earmark.scenarios.core import Scenario, scenario, scenario_names

__all__ = ["Scenario", "scenario", "scenario_names"]
