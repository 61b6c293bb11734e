"""What an author of clients and workers installs: the wheel of this tree in an environment of its own.

wheel    builds the wheel, and environments that hold it with what one of its extras needs
sizes    `python -m tests.thin.sizes`: the table of docs/sdk.md
"""
