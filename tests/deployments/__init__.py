"""The pool in real servers (gunicorn, uvicorn, granian and others), each in processes of its own."""
