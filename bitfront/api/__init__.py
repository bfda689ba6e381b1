"""The REST API: studies submitted, watched, changed and exported over HTTP."""
