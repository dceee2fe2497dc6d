"""One module a family of products: each writes the other side of a tunnel for them."""
