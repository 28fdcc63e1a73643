"""What checks the exercises of the notebooks: the checker and its cases."""
