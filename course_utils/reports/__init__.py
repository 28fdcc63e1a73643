"""What 03 leaves behind: the judgments' page, the run's table, labels of your own."""
