"""What a task is, how it is built from files and read back, and tasks from a user's own files."""
