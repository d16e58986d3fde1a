"""The files of models: weights read tensor by tensor, written file by file, fetched from the hub."""
