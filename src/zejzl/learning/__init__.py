"""Mining what happened, and statistics on it: pure, values in, values out."""
