"""The demonstration: an external IP moved under load by four orders of the same steps, and what each order broke."""
