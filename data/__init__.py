"""Models, challenge clips and profiles that ship with earmark."""
