"""The program behind `make book` and `make notebooks`: convert, execute, keep, render."""
