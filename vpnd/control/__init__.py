"""The operator's side: the API, its client, the commands and the words of every diagnosis."""
