"""The pool in real servers (gunicorn, uvicorn, uWSGI and others), each in processes of its own."""
