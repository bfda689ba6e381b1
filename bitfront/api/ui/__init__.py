"""Web pages over the API: studies, their points, workers; HTML from templates, no build step."""
