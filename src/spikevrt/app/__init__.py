"""The main job on footage that ships with the package."""
