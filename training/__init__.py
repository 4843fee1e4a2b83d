"""Recipes that train the small embedded models of earmark on synthesised speech."""
