"""The `lading` command. Sub-commands are imported only when they are called."""
