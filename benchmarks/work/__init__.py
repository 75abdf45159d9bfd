"""What a client is given to do, and what is measured of it meanwhile."""
