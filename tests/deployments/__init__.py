"""The pool in real servers (gunicorn, uvicorn, granian and others), each in separate processes."""
