"""What turns a task's rows into features: a language model with its prompts is one."""
