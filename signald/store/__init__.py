"""What is kept: three twins behind one contract."""
