"""The program behind `make book`, `make pdf` and `make notebooks`: convert, execute, keep, render."""
