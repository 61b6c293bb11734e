"""What an attacker tries, one test for each thing; test_lines.py lists all of them, wherever in the tree they stand."""
