"""Tables, differences, figures, pages and documents from the results of runs."""
