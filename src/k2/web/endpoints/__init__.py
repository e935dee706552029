"""Who answers: a module a subject, each with its `ROUTES`."""
