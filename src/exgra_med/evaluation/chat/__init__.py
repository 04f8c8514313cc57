"""The visual chatbot: answers to open questions, graded by a language model in both orders."""
