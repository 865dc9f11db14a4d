"""Measuring operators: errors against the interpreter, times against other forms, tables and plots."""
