"""A machine that is rented for one run: found, fitted out, watched, and always given back."""
