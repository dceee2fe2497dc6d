"""The tests of vpnd; `tests.lab` is the laboratory that demo and bench use as well."""
