"""What is run: the catalog, the methods, workflow definitions, reports and the command line."""
