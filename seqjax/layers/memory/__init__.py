"""Networks that drive an external memory."""
