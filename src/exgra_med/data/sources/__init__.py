"""One file per dataset, from its published files to records."""
