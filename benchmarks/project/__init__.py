"""A Django project with one view, implemented in three ways."""
