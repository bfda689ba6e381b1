"""Workers: processes that take tasks from the study database and do them."""
