"""The rules of the code itself: layers, words, sizes, and a README that tells the truth."""
