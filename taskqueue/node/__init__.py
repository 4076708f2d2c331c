"""A node: one ``queue:work`` process tree of supervisor, template and workers."""
