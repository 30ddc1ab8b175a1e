"""The commands: a module for each subject, each with its table COMMANDS at the end."""
