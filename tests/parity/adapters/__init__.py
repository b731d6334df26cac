"""One module per method: `outputs(case)` gives everything that a case of the method may hold, under its names."""
