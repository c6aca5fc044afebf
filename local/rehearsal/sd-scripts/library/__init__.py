"""The part of Kohya's library that the training container reaches into."""
