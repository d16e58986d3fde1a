"""Which samples hold the text of a benchmark: n-grams of words, compared."""
