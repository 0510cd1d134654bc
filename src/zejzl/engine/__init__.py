"""The works: one request's journey, and what keeps it alive. Waiting and deadlines live here."""
