"""Zero-shot classification by multiple choice (OmniMedVQA): by generation and by likelihood."""
