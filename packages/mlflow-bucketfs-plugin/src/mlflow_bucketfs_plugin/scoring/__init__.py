"""From a registered model to a script in the database that scores rows."""
