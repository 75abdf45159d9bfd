"""A Django project with two views, a plain and a streaming one, each implemented in three ways."""
