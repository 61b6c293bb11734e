"""Tests of what a node does for rooms."""
