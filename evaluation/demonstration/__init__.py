"""The demonstration: an external IP moved under load in several orders, and what each order broke."""
