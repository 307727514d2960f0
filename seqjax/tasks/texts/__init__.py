"""Tasks of texts: what comes next, what they are about, what they are in another language."""
