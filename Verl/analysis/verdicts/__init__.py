"""What a study says: questions, comparisons, sentences, the summary table. Start at compare.py."""
