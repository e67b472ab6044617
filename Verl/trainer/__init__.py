"""Entry points, settings and the trainers."""
