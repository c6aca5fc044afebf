"""`./dev validate` and `./dev plan`: a folder is judged by the functions' own code, without AWS."""
