"""A Django project with one view, written three ways."""
