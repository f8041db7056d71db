"""From the bytes of a request body to checked values, for every API: structure, wording of errors, token ids."""
