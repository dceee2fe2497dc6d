"""The API as programs of others use it: by a generated client, and by a fuzzer that reads the document."""
